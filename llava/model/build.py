"""Join a vision tower and a causal language model into the stock LLaVA class, with its processor.

The result is `transformers.LlavaForConditionalGeneration` (or `LlavaNextForConditionalGeneration`), unsubclassed:
whatever loads a hub LLaVA loads what is trained here.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from llava.config import ModelRecipe
from llava.errors import SettingsError
from llava.model import attention, projector, projector_kinds, sources, special_tokens, towers
from llava.model.deep_projector import DeepLlavaConfig, DeepLlavaForConditionalGeneration
from llava.model.partitions import whole_shape
from llava.model.processor import build_processor, default_pinpoints

if TYPE_CHECKING:
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaNextConfig, PreTrainedTokenizerBase

__all__ = ["build_config", "build_model", "build_processor"]


def build_config(recipe: ModelRecipe, tokenizer: PreTrainedTokenizerBase) -> LlavaConfig | LlavaNextConfig:
    """The joined model's configuration, from the two parts' configurations alone.

    Raises:
        SettingsError: the parts do not fit together.
    """
    vision, text = sources.vision_config(recipe.vision_tower), sources.text_config(recipe.language_model)
    return _join_configs(recipe, tokenizer, vision, text)


def build_model(
    recipe: ModelRecipe,
    *,
    tokenizer: PreTrainedTokenizerBase,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    meta: bool = False,
    quantize_4bit: bool = False,
    seed: int = 0,
    loading: AbstractContextManager[Any] | None = None,
) -> LlavaForConditionalGeneration:
    """Build the model a recipe describes: pretrained tower, pretrained language model, fresh projector.

    Args:
        recipe: the recipe's `model` section.
        tokenizer: with `<image>` and a padding token (`special_tokens.load_tokenizer`, or
            `build_processor(...).tokenizer`).
        dtype: of all parameters.
        device: where they end up.
        meta: build on the meta device from the configurations alone: shapes, no weights read.
        quantize_4bit: language layers in NF4 with double quantisation (QLoRA, Dettmers et al. 2023), for adapters on
            top; embeddings, head, tower and projector stay in `dtype`. Needs bitsandbytes.
        seed: of the projector's initialisation; nothing else is random.
        loading: entered while the pretrained parts are read; what cuts them over ranks (ZeRO-3) as they come.

    Raises:
        SettingsError: a part cannot be read, is of the wrong kind, or does not fit the other.
    """
    if meta:
        config = build_config(recipe, tokenizer)
        with torch.device("meta"):
            model = _model_class(config)._from_config(config, dtype=dtype)
        return _prepared(model, recipe)

    import transformers
    from transformers import AutoModelForCausalLM

    tower_config, text_config = sources.vision_config(recipe.vision_tower), sources.text_config(recipe.language_model)
    # Straight to the device, tensor by tensor out of mapped files: the host holds no model, however many ranks read.
    place: dict[str, Any] = {} if loading is not None else {"device_map": {"": str(device)}}
    more = _four_bit(dtype) if quantize_4bit else {}
    with loading or nullcontext():
        tower_class = getattr(transformers, towers.FAMILIES[tower_config.model_type].model_class)
        tower = _load(tower_class, recipe.vision_tower, "model.vision_tower", dtype, tower_config, **place)
        language_model = _load(
            AutoModelForCausalLM, recipe.language_model, "model.language_model", dtype, text_config, **place, **more
        )
    rows = special_tokens.rows_needed(tokenizer, whole_shape(language_model.get_input_embeddings().weight)[0])
    tied = language_model.config.tie_word_embeddings
    special_tokens.resize_rows(language_model.get_input_embeddings(), rows)
    if not tied:
        special_tokens.resize_rows(language_model.get_output_embeddings(), rows)

    config = _join_configs(recipe, tokenizer, tower.config, language_model.config)
    with torch.device("meta"):
        model = _model_class(config)._from_config(config, dtype=dtype)
    model.model.vision_tower = tower
    model.model.language_model = language_model.get_decoder()
    if quantize_4bit:
        model.model.language_model.is_loaded_in_4bit = True  # how peft tells which kind of adapter layer to use
    model.lm_head = language_model.get_output_embeddings()
    if tied:
        model.lm_head.weight = model.model.language_model.get_input_embeddings().weight
    joint = model.model.multi_modal_projector.to_empty(device="cpu")
    projector.initialise(joint, recipe.projector, seed)
    if hasattr(model.model, "image_newline"):
        _initialise_newline(model, seed)
    if language_model.can_generate():
        model.generation_config = language_model.generation_config
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return _prepared(model.to(device), recipe)


def _join_configs(
    recipe: ModelRecipe, tokenizer: PreTrainedTokenizerBase, vision: Any, text: Any
) -> LlavaConfig | LlavaNextConfig:
    from transformers import LlavaConfig, LlavaNextConfig

    projector_kinds.check_widths(recipe.projector, vision.hidden_size, text.hidden_size)
    layers = vision.num_hidden_layers
    layer = recipe.vision_feature_layer
    # The stock class takes 0 for "none chosen" and fails, so a checkpoint with it could not be served.
    if not -layers - 1 <= layer <= layers or layer in (0, -layers - 1):
        raise SettingsError(
            f"model.vision_feature_layer: found {layer}; the tower has {layers} layers, "
            f"so expected {-layers}..-1 or 1..{layers}"
        )
    text.vocab_size = special_tokens.rows_needed(tokenizer, text.vocab_size)
    text.pad_token_id = tokenizer.pad_token_id
    # The top-level flag is not read by Llama; a cache would also switch off the isolation of packed rows.
    text.use_cache = False
    strategy = towers.strategy_for(vision.model_type, recipe.vision_feature_select_strategy)
    shared: dict[str, Any] = {
        "vision_config": vision,
        "text_config": text,
        "image_token_index": special_tokens.image_token_id(tokenizer),
        "image_seq_length": towers.hidden_states(vision) - (strategy == "default"),
        "projector_hidden_act": projector_kinds.hidden_act(recipe.projector),
        "vision_feature_layer": recipe.vision_feature_layer,
        "vision_feature_select_strategy": strategy,
        "tie_word_embeddings": text.tie_word_embeddings,
    }
    depth = projector_kinds.depth_of(recipe.projector)
    if recipe.architecture == "llava_next":
        if depth > 2:
            raise SettingsError(
                f"model.projector: found {recipe.projector} with architecture llava_next; "
                "expected linear, identity or mlp2x_gelu"
            )
        grid = recipe.image_grid_pinpoints or default_pinpoints(vision.image_size)
        return LlavaNextConfig(**shared, image_grid_pinpoints=[list(size) for size in grid])
    if recipe.image_grid_pinpoints is not None:
        raise SettingsError(
            "model.image_grid_pinpoints: only architecture llava_next uses tiles; "
            "remove it or set architecture to llava_next"
        )
    if depth > 2:
        return DeepLlavaConfig(**shared, projector_depth=depth)
    return LlavaConfig(**shared)


def _model_class(config: Any) -> Any:
    from transformers import LlavaForConditionalGeneration, LlavaNextConfig, LlavaNextForConditionalGeneration

    if isinstance(config, DeepLlavaConfig):
        return DeepLlavaForConditionalGeneration
    return LlavaNextForConditionalGeneration if isinstance(config, LlavaNextConfig) else LlavaForConditionalGeneration


def _four_bit(dtype: torch.dtype) -> dict[str, Any]:
    import importlib.util

    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise SettingsError(
            "lora.quantize_4bit: bitsandbytes is not installed; install the extra qlora (pip install '.[qlora]'), "
            "or turn it off"
        )
    options = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": options}


def _load(cls: Any, source: str, field: str, dtype: torch.dtype, config: Any, **more: Any) -> Any:
    from safetensors import SafetensorError
    from transformers.utils import logging

    path = sources.resolve(source, field)
    level = logging.get_verbosity()
    # A whole CLIP or SigLIP read as its vision half reports every text key; missing keys matter, and those raise below.
    logging.set_verbosity_error()
    try:
        model, report = cls.from_pretrained(path, config=config, dtype=dtype, output_loading_info=True, **more)
    except (OSError, ValueError, SafetensorError) as error:
        raise SettingsError(f"{field}: {source}: its weights cannot be read: {error}") from error
    finally:
        logging.set_verbosity(level)
    absent = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if absent:
        raise SettingsError(
            f"{field}: {source}: {len(absent)} weights are missing or of another shape, the first {absent[0]!r}; "
            "training it would train noise"
        )
    return model


def _initialise_newline(model: Any, seed: int) -> None:
    width = model.config.text_config.hidden_size
    generator = torch.Generator().manual_seed(seed + 1)
    value = torch.randn(width, generator=generator) * width**-0.5
    model.model.image_newline = torch.nn.Parameter(value.to(model.model.image_newline.dtype))


def _prepared(model: Any, recipe: ModelRecipe) -> Any:
    # Grafted parts keep their own configuration objects: one truth, so that a change of one is seen by the other.
    model.config.text_config = model.model.config.text_config = model.model.language_model.config
    model.config.vision_config = model.model.config.vision_config = model.model.vision_tower.config
    projector.remember_kind(model.model.multi_modal_projector, recipe.projector)
    attention.install(model)
    return model.eval()
