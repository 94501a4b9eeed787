"""The processor a checkpoint is trained and saved with: tokenizer, image settings, chat template, visual token count.

Serving engines do `processor(text=..., images=...)` and nothing else, so whatever training did to text and pixels
has to be in here: padding to a square or cropping, the tower's size, mean and deviation, the template.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

from llava import storage
from llava.config import ModelRecipe
from llava.errors import SettingsError
from llava.model import sources, special_tokens, towers

if TYPE_CHECKING:
    from transformers import LlavaNextProcessor, LlavaProcessor


class ChatTemplate(Protocol):
    """A conversation template (`llava.data.templates`): only its jinja text is needed here."""

    def chat_template(self) -> str: ...


def build_processor(
    recipe: ModelRecipe, template: ChatTemplate | str | None, image_aspect_ratio: Literal["pad", "crop", "resize"]
) -> LlavaProcessor | LlavaNextProcessor:
    """The processor for a recipe: with tokenizer (`<image>` and padding token added) and image settings.

    Args:
        recipe: the recipe's `model` section.
        template: the template trained with, its jinja text, or None for the tokenizer's own.
        image_aspect_ratio: `pad` to a square with the mean colour, `crop` the centre, or `resize` to a square
            whatever the shape. LLaVA-NeXT has tiles instead.

    Raises:
        SettingsError: a part cannot be read, or None was given and the tokenizer has no chat template.
    """
    from transformers import LlavaNextProcessor, LlavaProcessor

    tokenizer = special_tokens.load_tokenizer(recipe.language_model)
    vision = sources.vision_config(recipe.vision_tower)
    if template is None:
        if not isinstance(tokenizer.chat_template, str):
            raise SettingsError(
                f"template: {recipe.language_model}: its tokenizer has no chat template; name one, such as v1"
            )
        text = tokenizer.chat_template
    else:
        text = template if isinstance(template, str) else template.chat_template()
    # One truth: a tokenizer that keeps its own template would be asked first by some engines.
    tokenizer.chat_template = text
    options: dict[str, Any] = {
        "tokenizer": tokenizer,
        "patch_size": vision.patch_size,
        "vision_feature_select_strategy": towers.strategy_for(vision.model_type, recipe.vision_feature_select_strategy),
        # The class token where the tower has one, which strategy `default` takes off again.
        "num_additional_image_tokens": int(towers.FAMILIES[vision.model_type].class_token),
        "chat_template": text,
    }
    if recipe.architecture == "llava_next":
        return LlavaNextProcessor(image_processor=_next_image_processor(recipe, vision), **options)
    return LlavaProcessor(image_processor=_image_processor(recipe, vision, image_aspect_ratio), **options)


def default_pinpoints(image_size: int) -> list[tuple[int, int]]:
    """LLaVA-NeXT's resolutions, (height, width) in pixels: 1x2, 2x1, 2x2, 3x1 and 1x3 tiles of `image_size`."""
    return [(rows * image_size, columns * image_size) for rows, columns in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))]


def _image_processor(recipe: ModelRecipe, vision: Any, image_aspect_ratio: str) -> Any:
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    side = vision.image_size
    square = {"height": side, "width": side}
    return LlavaImageProcessorPil(
        do_pad=image_aspect_ratio == "pad",
        size=square if image_aspect_ratio == "resize" else {"shortest_edge": side},
        crop_size=square,  # counts the visual tokens too
        do_center_crop=image_aspect_ratio != "resize",
        **_colour_settings(recipe, vision),
    )


def _next_image_processor(recipe: ModelRecipe, vision: Any) -> Any:
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    side = vision.image_size
    grid = recipe.image_grid_pinpoints or default_pinpoints(side)
    return LlavaNextImageProcessorPil(
        image_grid_pinpoints=[list(size) for size in grid],
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        **_colour_settings(recipe, vision),
    )


def _colour_settings(recipe: ModelRecipe, vision: Any) -> dict[str, Any]:
    from transformers.utils import cached_file

    path = sources.resolve(recipe.vision_tower, "model.vision_tower", weights=False)
    found = cached_file(path, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
    if found is None:  # a bare tower: its family's published values
        family = towers.FAMILIES[vision.model_type]
        return {"image_mean": list(family.mean), "image_std": list(family.std), "resample": family.resample}
    settings = storage.read_json(found)
    return {name: settings[name] for name in ("image_mean", "image_std", "resample") if name in settings}
