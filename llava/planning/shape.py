"""The sizes that decide cost: read off a configuration, with no weight and no torch involved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llava.config import LoraRecipe
from llava.model import towers
from llava.model.projector_kinds import depth_of


@dataclass(frozen=True)
class Shape:
    """One joined model in numbers. Widths and counts are per layer where not said otherwise.

    Attributes:
        layers, width, hidden: language model: layers L, width d, feed-forward width f (three matrices: gate, up, down).
        heads, query_width, kv_width: query heads, their number x head width, and key/value heads x head width.
        vocabulary: rows of the embedding matrix, V. `tied`: the head shares it.
        tower_layers, tower_used: layers present and layers run (features come from `vision_feature_layer`).
        tower_width, tower_hidden, patches, patch: the tower; `patches` without the class token; `patch` in pixels.
        visual_tokens: tokens of one square image as the language model sees it.
        projector_depth: linear layers of the projector; `projector_dead` of the stock class's two are fixed identities.
        anyres: whether images are tiles (LLaVA-NeXT).
        tower: the tower's family, by model type.
        qk_norm: parameters of the norms of queries and keys, a layer (Qwen3, Gemma 3, OLMo 2).
        biases: of the language layers' linear layers, a layer.
        norms: norms of one language layer, each of the model's width.
    """

    layers: int
    width: int
    hidden: int
    heads: int
    query_width: int
    kv_width: int
    vocabulary: int
    tied: bool
    tower_layers: int
    tower_used: int
    tower_width: int
    tower_hidden: int
    patches: int
    patch: int
    visual_tokens: int
    projector_depth: int
    anyres: bool
    tower: str = "clip_vision_model"
    qk_norm: int = 0
    biases: int = 0
    norms: int = 2

    @classmethod
    def of(cls, config: Any, projector: str) -> Shape:
        """The shape of a joined configuration (`build.build_config`, `model.config`) with a recipe's projector."""
        text, vision = config.text_config, config.vision_config
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        layer = config.vision_feature_layer
        heads, kv_heads = text.num_attention_heads, text.num_key_value_heads
        kind = getattr(text, "model_type", "llama")
        strategy = towers.strategy_for(vision.model_type, config.vision_feature_select_strategy)
        return cls(
            layers=text.num_hidden_layers,
            width=text.hidden_size,
            hidden=text.intermediate_size,
            heads=heads,
            query_width=heads * head,
            kv_width=kv_heads * head,
            vocabulary=text.vocab_size,
            tied=bool(text.tie_word_embeddings),
            tower_layers=vision.num_hidden_layers,
            tower_used=towers.used_layers(vision.num_hidden_layers, layer),
            tower_width=vision.hidden_size,
            tower_hidden=towers.feed_forward(vision),
            patches=towers.patches(vision),
            patch=vision.patch_size,
            visual_tokens=towers.hidden_states(vision) - (strategy == "default"),
            projector_depth=depth_of(projector),
            anyres=hasattr(config, "image_grid_pinpoints"),
            tower=vision.model_type,
            qk_norm=_qk_norm(kind, head, heads, kv_heads),
            biases=(heads + 2 * kv_heads) * head if kind == "qwen2" else 0,
            norms=4 if kind == "gemma3_text" else 2,
        )

    @property
    def layer_matrix(self) -> int:
        """Matmul parameters of one language layer."""
        return self.width * (2 * self.query_width + 2 * self.kv_width + 3 * self.hidden)

    @property
    def language_parameters(self) -> int:
        """All parameters of the language model, head included."""
        embeddings = self.vocabulary * self.width * (1 if self.tied else 2)
        return (
            self.layers * (self.layer_matrix + self.norms * self.width + self.qk_norm + self.biases)
            + self.width
            + embeddings
        )

    @property
    def tower_parameters(self) -> int:
        """All parameters of the tower, the layers that never run included."""
        e, f = self.tower_width, self.tower_hidden
        layer = 4 * (e * e + e) + (e * f + f) + (f * e + e) + 4 * e
        convolution, positions = 3 * self.patch**2 * e, self.patches * e
        if self.tower == "siglip_vision_model":  # bias of the convolution, the norm behind the layers
            return self.tower_layers * layer + convolution + e + positions + 2 * e
        if self.tower == "dinov2":  # a scale behind each half of a layer; mask token, class token, its position, a norm
            return self.tower_layers * (layer + 2 * e) + convolution + e + positions + 3 * e + 2 * e
        return self.tower_layers * layer + convolution + e + positions + e + 4 * e  # class token, its position, norms

    @property
    def projector_parameters(self) -> int:
        """All parameters of the projector as it lies in memory: the stock class always has two layers."""
        depth = max(2, self.projector_depth)
        newline = self.width if self.anyres else 0
        return (self.tower_width + 1) * self.width + (depth - 1) * (self.width + 1) * self.width + newline

    @property
    def projector_trained(self) -> int:
        """Parameters of the projector that training moves."""
        newline = self.width if self.anyres else 0
        if self.projector_depth == 0:
            return newline
        first = (self.tower_width + 1) * self.width
        return first + (self.projector_depth - 1) * (self.width + 1) * self.width + newline

    def lora_parameters(self, lora: LoraRecipe) -> int:
        """Parameters of the adapters."""
        return self.layers * lora.r * sum(sum(self.target(name)) for name in lora.target_modules)

    def lora_matrix(self, lora: LoraRecipe) -> int:
        """Matmul parameters of one layer's adapters."""
        return self.lora_parameters(lora) // self.layers

    def target(self, name: str) -> tuple[int, int]:
        d, q, kv, f = self.width, self.query_width, self.kv_width, self.hidden
        known = {
            "q_proj": (d, q),
            "k_proj": (d, kv),
            "v_proj": (d, kv),
            "o_proj": (q, d),
            "gate_proj": (d, f),
            "up_proj": (d, f),
            "down_proj": (f, d),
        }
        return known.get(name, (d, d))


def _qk_norm(kind: str, head: int, heads: int, kv_heads: int) -> int:
    if kind in ("qwen3", "gemma3_text"):  # one for all heads
        return 2 * head
    return (heads + kv_heads) * head if kind == "olmo2" else 0
