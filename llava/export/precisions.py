"""Names of the precisions an export can have; read before torch is."""

from __future__ import annotations

from llava.errors import SettingsError

PRECISIONS = ("fp32", "fp16", "int8")


def parse_precisions(text: str) -> list[str]:
    """Comma-separated precisions, in the order fp32, fp16, int8.

    Raises:
        SettingsError: an unknown one, or none.
    """
    asked = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in asked if part not in PRECISIONS]
    if unknown or not asked:
        raise SettingsError(f"precisions: found {text!r}; expected some of {','.join(PRECISIONS)}")
    return [precision for precision in PRECISIONS if precision in asked]
