"""What numbers and names in annotation files must be, whoever wrote them."""

from __future__ import annotations

import math
import re
from typing import Any

_MOST_PIXELS_A_SIDE = 1e6
# COCO's own names, 2014 with the split in front, and what Roboflow makes of them.
_COCO_NAME = re.compile(r"(?:^|/)(?:COCO_\w+_)?(\d{12})(?:_jpg\.rf\.\w+)?\.\w+$")


def is_id(value: Any) -> bool:
    """A whole number that an array of 64-bit integers holds."""
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def is_side(value: Any) -> bool:
    """Pixels of an image's side."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _MOST_PIXELS_A_SIDE


def is_box(x: Any, y: Any, width: Any, height: Any) -> bool:
    """Corner and size of a box with an area.

    Raises:
        TypeError, OverflowError: they are no numbers, or none that a float holds.
    """
    return bool(width > 0 and height > 0 and math.isfinite(x + y + width + height))


def coco_id(path: str) -> int | None:
    """The COCO id in an image's name, which the block-list of evaluation images goes by; None in other names."""
    found = _COCO_NAME.search(path)
    return int(found.group(1)) if found else None
