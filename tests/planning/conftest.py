"""The tiny models of `tests.model`, for planning what they need."""

from tests.model.conftest import built, recipe_of, tiny_lm_dirs  # noqa: F401  (fixtures)
