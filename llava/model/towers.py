"""Vision towers by family: what differs between CLIP, SigLIP and DINOv2, in one table.

| family | hub models | class token | keys in a checkpoint |
|---|---|---|---|
| CLIP (Radford et al. 2021) | `clip`, `clip_vision_model` | yes | `vision_tower.vision_model.*` |
| SigLIP, SigLIP 2 at a fixed resolution (Zhai et al. 2023, Tschannen et al. 2025) | `siglip`, `siglip_vision_model` | no | `vision_tower.vision_model.*` |
| DINOv2 without registers (Oquab et al. 2023) | `dinov2` | yes | `vision_tower.*` |

Nothing here imports torch: planning and the checks before a run read the same table.
"""  # noqa: E501

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from llava.errors import SettingsError

Strategy = Literal["default", "full"]

_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class TowerFamily:
    """One family of towers.

    Attributes:
        name: as people call it.
        model_class: the class in transformers that holds the tower alone.
        class_token: its first hidden state is not a patch; strategy `default` takes it off.
        hub_prefix: of the tower's keys in a LLaVA checkpoint, as other engines expect them.
        before: modules that run before the layers, by name, in order.
        layers: where its layers lie, by name.
        behind: the norm behind the last layer, which LLaVA never runs.
        mean, std, resample: of its published image processors, for a folder without one.
    """

    name: str
    model_class: str
    class_token: bool
    hub_prefix: str
    before: tuple[str, ...]
    layers: str
    behind: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int = 3


FAMILIES: dict[str, TowerFamily] = {
    "clip_vision_model": TowerFamily(
        name="CLIP",
        model_class="CLIPVisionModel",
        class_token=True,
        hub_prefix="vision_tower.vision_model.",
        before=("embeddings", "pre_layrnorm"),
        layers="encoder.layers",
        behind="post_layernorm",
        mean=_CLIP_MEAN,
        std=_CLIP_STD,
    ),
    "siglip_vision_model": TowerFamily(
        name="SigLIP",
        model_class="SiglipVisionModel",
        class_token=False,
        hub_prefix="vision_tower.vision_model.",
        before=("embeddings",),
        layers="encoder.layers",
        behind="post_layernorm",
        mean=_HALF,
        std=_HALF,
    ),
    "dinov2": TowerFamily(
        name="DINOv2",
        model_class="Dinov2Model",
        class_token=True,
        hub_prefix="vision_tower.",
        before=("embeddings",),
        layers="encoder.layer",
        behind="layernorm",
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    ),
}

_INNER = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
_REFUSED = {
    "siglip2": "SigLIP 2 of variable resolution (NaFlex), whose patches the stock LLaVA does not carry; take one of a "
    "fixed resolution, such as google/siglip2-so400m-patch14-384",
    "siglip2_vision_model": "SigLIP 2 of variable resolution (NaFlex), whose patches the stock LLaVA does not carry; "
    "take one of a fixed resolution, such as google/siglip2-so400m-patch14-384",
    "dinov2_with_registers": "DINOv2 with registers, which the stock LLaVA would hand on as if they were patches; take "
    "one without, such as facebook/dinov2-large",
}


def family_of(model_type: str | None, source: str) -> TowerFamily:
    """The family of a tower by the `model_type` of its configuration, or of the whole model's it is part of.

    Raises:
        SettingsError: none of ours; the message says what would be right.
    """
    found = FAMILIES.get(inner_type(model_type or ""))
    if found is not None:
        return found
    if model_type in _REFUSED:
        raise SettingsError(f"model.vision_tower: {source} is a {_REFUSED[model_type]}")
    raise SettingsError(
        f"model.vision_tower: {source} is a {model_type!r}; expected a CLIP, a SigLIP or SigLIP 2 of fixed resolution, "
        f"or a DINOv2 (model_type {', '.join([*_INNER, *FAMILIES])})"
    )


def inner_type(model_type: str) -> str:
    """The tower's own model type, for that of the whole model it is part of."""
    return _INNER.get(model_type, model_type)


def strategy_for(model_type: str, strategy: Strategy) -> Strategy:
    """What the stock class has to be told to give the features that a recipe means.

    A recipe's `default` means the patches. The stock class takes `default` for "cut off the first hidden state",
    whatever that is; without a class token it would be a patch.
    """
    return strategy if FAMILIES[model_type].class_token else "full"


def hidden_states(config: Any) -> int:
    """Hidden states of one image before any selection: patches, and the class token where there is one."""
    return patches(config) + int(FAMILIES[config.model_type].class_token)


def patches(config: Any) -> int:
    """Patches of one image at the tower's own resolution; what a last incomplete patch would hold is not looked at."""
    return int((config.image_size // config.patch_size) ** 2)


def feed_forward(config: Any) -> int:
    """Width of the tower's feed-forward layers, counted as two matrices."""
    width = getattr(config, "intermediate_size", None)
    if width is not None:
        return int(width)
    inner = int(config.hidden_size * config.mlp_ratio)
    if not getattr(config, "use_swiglu_ffn", False):
        return inner
    gated = (int(inner * 2 / 3) + 7) // 8 * 8
    return gated * 3 // 2  # three matrices of the gated width


def check_shape(config: Any, source: str) -> None:
    """Refuse a tower that is not square.

    Raises:
        SettingsError: sides or patches of two different lengths.
    """
    for name in ("image_size", "patch_size"):
        value = getattr(config, name)
        if isinstance(value, (list, tuple)) and len(set(value)) == 1:
            setattr(config, name, int(value[0]))
        elif not isinstance(value, int):
            raise SettingsError(
                f"model.vision_tower: {source}: {name}: found {value!r}; expected one number of pixels, as for a square"
            )


def part(tower: Any, path: str) -> Any:
    """A tower's module by its name in the table."""
    return tower.get_submodule(path)


def layers_of(tower: Any) -> Any:
    """The tower's layers, in order."""
    return part(tower, FAMILIES[tower.config.model_type].layers)


def modules_before(tower: Any) -> list[Any]:
    """What runs before the layers, in order."""
    return [part(tower, name) for name in FAMILIES[tower.config.model_type].before]


def used_layers(count: int, layer: int) -> int:
    """How many of `count` layers run for the hidden state `layer` (negative: from the end)."""
    return layer if layer >= 0 else count + 1 + layer


def input_dtype(tower: Any) -> Any:
    """What the tower's first convolution computes in."""
    patch = getattr(tower.embeddings, "patch_embedding", None) or tower.embeddings.patch_embeddings.projection
    return patch.weight.dtype
