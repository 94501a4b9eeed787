"""Which projector a recipe's word means: how deep, with what between its layers. Numbers and names; no torch."""

from __future__ import annotations

import re

from llava.errors import SettingsError


def depth_of(projector: str) -> int:
    """Linear layers of the projector: 0 for identity, 1 for linear, N for mlpNx_gelu."""
    if projector == "identity":
        return 0
    if projector == "linear":
        return 1
    match = re.fullmatch(r"mlp(\d+)x_gelu", projector)
    if match is None:
        raise SettingsError(
            f"model.projector: found {projector!r}; expected linear, identity, or mlpNx_gelu with N >= 1"
        )
    return int(match.group(1))


def hidden_act(projector: str) -> str:
    """The stock config's `projector_hidden_act` for a recipe's projector."""
    return "gelu" if depth_of(projector) >= 2 else "linear"


def check_widths(projector: str, vision_width: int, text_width: int) -> None:
    """Raises SettingsError where `identity` would join two different widths."""
    if depth_of(projector) == 0 and vision_width != text_width:
        raise SettingsError(
            f"model.projector: identity needs equal widths; the tower has {vision_width}, "
            f"the language model {text_width}"
        )
