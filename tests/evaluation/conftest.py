"""What several tests of evaluations share."""

from tests.hub_model import hub_model  # noqa: F401  (fixture)
