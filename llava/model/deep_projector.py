"""A projector of N > 2 linear layers, and the LLaVA that carries it.

The stock class holds two layers at most. A checkpoint of such a model is therefore the one exception to "loads with
no code of ours": this very file is saved into it (`auto_map`), so that
`AutoModelForImageTextToText.from_pretrained(..., trust_remote_code=True)` loads it without this project, and its keys
(`multi_modal_projector.layers.*`) differ from the stock ones, so that the stock class cannot take part of it silently.
It must import nothing but torch and transformers.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration
from transformers.activations import ACT2FN


class DeepProjector(nn.Module):
    """Linear, then (activation, Linear) N - 1 times: (..., vision width) -> (..., text width)."""

    def __init__(self, vision_width: int, text_width: int, depth: int, activation: str = "gelu") -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(vision_width if i == 0 else text_width, text_width) for i in range(depth)]
        )
        self.act = ACT2FN[activation]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = self.layers[0](features)
        for layer in self.layers[1:]:
            features = layer(self.act(features))
        return features


class DeepLlavaConfig(LlavaConfig):
    """LlavaConfig with `projector_depth`, the number of linear layers of the projector."""

    model_type = "llava_deep_projector"
    projector_depth: int = 3


class DeepLlavaForConditionalGeneration(LlavaForConditionalGeneration):
    """The stock model with a `DeepProjector` in the projector's place."""

    config_class = DeepLlavaConfig

    def __init__(self, config: DeepLlavaConfig) -> None:
        super().__init__(config)
        self.model.multi_modal_projector = DeepProjector(
            config.vision_config.hidden_size,
            config.text_config.hidden_size,
            config.projector_depth,
            config.projector_hidden_act,
        )
