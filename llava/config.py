"""Recipes: everything that decides the numbers of a training run, validated before anything is paid for.

A recipe is a YAML file under `recipes/`. It says which models are joined, how rows become tokens, and how
each of the two stages is optimised. Where a recipe runs (which bucket, how many GPUs) is not in it: that is
a stage's settings (`llava/stages/`). Published values and their sources: `docs/recipes.md`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from llava import storage
from llava.errors import SettingsError
from llava.parsing import Malformed, parse_json
from llava.suggestions import near
from llava.validation import Strict, validate

ROUND_ROWS_TO = 64  # rows of the embedding matrix, as in hub LLaVA

ProjectorType = Annotated[str, Field(pattern=r"^(linear|identity|mlp[1-9]\d*x_gelu)$")]
TemplateName = Literal[
    "plain", "v0", "v1", "llava_llama_2", "llava_llama_3", "mistral_instruct", "chatml", "qwen3", "tokenizer"
]


class ModelRecipe(Strict):
    """Which parts are joined (vision tower frozen, features from `vision_feature_layer`)."""

    vision_tower: str = Field(
        description="Vision tower: CLIP, SigLIP, SigLIP 2 of fixed resolution or DINOv2, as hub id, directory or s3:// "
        "URI of a hub directory"
    )
    language_model: str = Field(
        description="Causal language model of a supported family: hub id, directory or s3:// URI"
    )
    architecture: Literal["llava", "llava_next"] = Field(
        "llava", description="llava: one square image; llava_next: AnyRes tiles (LLaVA-NeXT)"
    )
    projector: ProjectorType = Field(
        "mlp2x_gelu", description="linear (the matrix W of v1), mlp2x_gelu, mlpNx_gelu, identity"
    )
    vision_feature_layer: int = Field(-2, description="Index into the tower's hidden states")
    vision_feature_select_strategy: Literal["default", "full"] = Field(
        "default", description="default: the patches; full: the class token too, where the tower has one"
    )
    image_grid_pinpoints: list[tuple[int, int]] | None = Field(
        None, description="llava_next only: allowed (height, width) resolutions in pixels"
    )


class LoraRecipe(Strict):
    """Low-rank adapters on the language model only (Hu et al. 2021)."""

    r: int = Field(128, ge=1, description="Rank of the adapters")
    alpha: float = Field(256, gt=0, description="Adapters count alpha / r times")
    dropout: float = Field(0.05, ge=0, lt=1, description="In front of the adapters, while training")
    target_modules: list[str] = Field(
        description="Linear layers of the language model, by the ends of their names",
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    )
    quantize_4bit: bool = Field(
        False, description="QLoRA: base weights in NF4 (Dettmers et al. 2023); needs a GPU and bitsandbytes"
    )


class TrainRecipe(Strict):
    """How one stage is optimised.

    One optimiser step always sees exactly `global_batch_size` rows, in an order that depends on `seed` and the data
    alone. Packing and the number of ranks only decide how those rows are laid out into micro-batches, so they change
    speed and memory, never the mathematics.
    """

    template: TemplateName = Field("v1", description="Conversation template that turns rows into text (docs/rows.md)")
    image_aspect_ratio: Literal["pad", "crop", "resize"] = Field(
        "pad",
        description="pad: to a square with the tower's mean colour; crop: resize the short side, cut the centre; "
        "resize: to the square whatever the shape, as SigLIP was trained",
    )
    device_preprocess: bool = Field(
        False,
        description="Pad, resize and normalise images on the device: the host only decodes, and pixels differ by at "
        "most 2 levels of 255 from the saved processor's; not for llava_next",
    )
    max_length: int = Field(
        2048, ge=8, description="Longest row in tokens, visual tokens included; longer rows are cut on the right"
    )

    epochs: float = Field(1.0, gt=0, description="Passes over the rows, fractions too")
    max_steps: int | None = Field(
        None, ge=1, description="Stop after this many optimiser steps, whatever `epochs` says"
    )
    global_batch_size: int = Field(128, ge=1, description="Rows per optimiser step over all ranks")
    micro_batch_size: int = Field(16, ge=1, description="Rows per rank and forward pass when packing is off")
    packing: bool = Field(True, description="Lay rows end to end in fixed-token packs instead of padding them")
    pack_tokens: int = Field(8192, ge=16, description="Tokens per pack")
    pack_images: int = Field(
        32, ge=1, description="Images per pack, the second capacity; an AnyRes image counts as its tiles"
    )
    group_by_modality_length: bool = Field(
        False, description="Batch rows of like length and kind together (original's stage 2)"
    )

    learning_rate: float = Field(gt=0, description="Peak rate of AdamW")
    projector_learning_rate: float | None = Field(None, gt=0, description="Default: learning_rate")
    vision_tower_learning_rate: float | None = Field(
        None, gt=0, description="Trains the tower too when given; frozen when absent"
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's; not of biases and norms")
    betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW's")
    eps: float = Field(1e-8, gt=0, description="AdamW's")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="Linear rise to learning_rate at the start")
    schedule: Literal["cosine", "constant", "linear"] = Field("cosine", description="After the warm-up")
    max_grad_norm: float | None = Field(None, gt=0, description="Gradients are clipped to it; absent: never")

    precision: Literal["fp32", "bf16"] = Field("bf16", description="Of weights and activations; masters are fp32")
    zero_stage: Literal[0, 1, 2, 3] = Field(2, description="DeepSpeed ZeRO: what is cut over the GPUs")
    offload_optimizer: bool = Field(
        False, description="Keep masters and moments in host memory; zero_stage 1 to 3, or bf16"
    )
    offload_parameters: bool = Field(False, description="Keep the weights in host memory; zero_stage 3 only")
    activation_checkpoint_every_n_layers: int = Field(
        0, ge=0, description="0: none; 1: every layer; n: every n-th layer"
    )
    compile: bool = Field(False, description="torch.compile each language-model layer")
    kernels: Literal["torch", "liger"] = Field(
        "torch", description="liger: fused norms, rotation and feed-forward (extra liger; GPU only)"
    )
    lora: LoraRecipe | None = Field(None, description="Adapters instead of all weights (stage 2)")
    nodes: int = Field(1, ge=1, description="Nodes; more than one makes the stage create a TrainJob on Kubernetes")

    seed: int = Field(0, description="Of the rows' order and of what is drawn: projector, adapters, dropout")
    loader_workers: int = Field(4, ge=0, description="Read-ahead threads per rank")
    save_every_steps: int = Field(500, ge=1, description="A checkpoint each so many steps, and one at the end")
    keep_checkpoints: int = Field(2, ge=1, description="The newest so many; older ones are deleted")
    log_every_steps: int = Field(10, ge=1, description="A line of progress each so many steps")
    validation_rows: int = Field(
        0, ge=0, description="Rows set aside for validation loss, from the end of the shuffled data"
    )
    validate_every_steps: int = Field(500, ge=1, description="Loss on validation_rows each so many steps")
    sample_generations: int = Field(2, ge=0, description="Validation rows answered in the report")
    max_bad_rows: float = Field(0.01, ge=0, le=1, description="Largest share of unusable rows before the stage stops")

    @property
    def effective_zero_stage(self) -> int:
        """The ZeRO stage that runs: bf16 needs at least 1, where DeepSpeed has fp32 masters and accumulates in fp32."""
        return max(self.zero_stage, 1) if self.precision == "bf16" else self.zero_stage

    @model_validator(mode="after")
    def _packs_hold_a_row(self) -> TrainRecipe:
        if self.packing and self.pack_tokens < self.max_length:
            raise ValueError(
                f"pack_tokens ({self.pack_tokens}) must be at least max_length ({self.max_length}), "
                "or a row may fit no pack"
            )
        return self

    @model_validator(mode="after")
    def _deepspeed_can_do_it(self) -> TrainRecipe:
        if self.lora is not None and self.lora.quantize_4bit and self.zero_stage == 3:
            raise ValueError("lora.quantize_4bit does not work with zero_stage 3; use 0, 1 or 2")
        if self.offload_optimizer and self.effective_zero_stage == 0:
            raise ValueError("offload_optimizer: found true with zero_stage 0 in fp32; expected zero_stage 1, 2 or 3")
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError(f"offload_parameters: found true with zero_stage {self.zero_stage}; expected zero_stage 3")
        return self


class Recipe(Strict):
    """A whole recipe file."""

    name: str
    description: str = ""
    model: ModelRecipe
    pretrain: TrainRecipe
    finetune: TrainRecipe

    @model_validator(mode="after")
    def _tiles_are_cut_on_the_host(self) -> Recipe:
        for stage in ("pretrain", "finetune"):
            if self.model.architecture == "llava_next" and getattr(self, stage).device_preprocess:
                raise ValueError(
                    f"{stage}.device_preprocess: found true with model.architecture llava_next, whose tiles it does "
                    "not make; expected false"
                )
        return self


def bundled_recipes() -> dict[str, Path]:
    """Name -> path of the recipes that come with the project (repository checkout or installed wheel)."""
    package = Path(str(resources.files("llava")))
    for folder in (package.parent / "recipes", package / "_recipes"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def load_recipe(name_or_uri: str, overrides: str | dict[str, Any] | None = None) -> Recipe:
    """Read and validate a recipe.

    Args:
        name_or_uri: name of a bundled recipe (`llava-v1.5-7b`), or path or URI of a YAML file.
        overrides: dotted fields to change, as a dict or its JSON text: `{"finetune.max_steps": 10}`.

    Raises:
        SettingsError: no such recipe, not YAML, an unknown field, a value out of range; the message names
            the file, the field, the value and what would be right.
    """
    known = bundled_recipes()
    if name_or_uri in known:
        source = str(known[name_or_uri])
    elif "/" in name_or_uri or name_or_uri.endswith((".yaml", ".yml")):
        source = name_or_uri
    else:
        close = near(name_or_uri, known)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise SettingsError(
            f"recipe: found {name_or_uri!r}; {hint}"
            f"expected one of {', '.join(known)}, or the path or URI of a YAML file"
        )
    data = storage.read_yaml(source)
    if not isinstance(data, dict):
        raise SettingsError(
            f"{source}: found {type(data).__name__}; expected a mapping with name, model, pretrain, finetune"
        )
    if isinstance(overrides, str):
        try:
            overrides = parse_json(overrides) if overrides.strip() else None
        except Malformed as error:
            raise SettingsError(
                f'overrides: {error}: {overrides!r}; expected e.g. {{"finetune.max_steps": 10}}'
            ) from error
    if overrides is not None and not isinstance(overrides, dict):
        raise SettingsError(
            f"overrides: found {str(overrides)[:80]!r}; expected an object of dotted fields, "
            f'e.g. {{"finetune.max_steps": 10}}'
        )
    for key, value in (overrides or {}).items():
        _set_dotted(data, key, value)
    return validate(Recipe, data, source)


def _set_dotted(data: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    node: Any = data
    for parent in parents:
        node = node.setdefault(parent, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            raise SettingsError(f"overrides: {key!r}: {parent!r} is not a section of the recipe")
    if isinstance(node.get(last), dict) and isinstance(value, dict):
        # A mapping for a section changes the fields it names; the others stay the recipe's.
        for inner, changed in value.items():
            _set_dotted(node[last], str(inner), changed)
        return
    node[last] = value
