"""What the teacher is shown of an image: captions and boxes as text, the image itself, or both."""

from __future__ import annotations

import string
from typing import Literal

from pydantic import Field, field_validator

from llava.expansion.sources.corpus import AnnotatedImage
from llava.validation import Strict

_FIELDS = {"category", "x1", "y1", "x2", "y2"}


class ContextRecipe(Strict):
    """How an image is written down for the teacher; part of a kind's recipe."""

    shows: Literal["text", "image", "both"] = Field(
        "text", description="text: captions and boxes, for teachers that see nothing; image: the image alone; both"
    )
    captions: bool = Field(True, description="One caption a line")
    boxes: bool = Field(False, description="A blank line, then one line per box")
    box_line: str = Field("{category}: [{x1}, {y1}, {x2}, {y2}]", description="Corners divided by the image's size")
    decimals: int = Field(3, ge=1, le=6)
    max_boxes: int = Field(100, ge=1, description="Largest boxes first when there are more")
    needs_boxes: bool = Field(False, description="Skip images without boxes")

    @field_validator("box_line")
    @classmethod
    def _known_fields(cls, value: str) -> str:
        named = {name for _, name, _, _ in string.Formatter().parse(value) if name is not None}
        if not named <= _FIELDS:
            raise ValueError(f"unknown {sorted(named - _FIELDS)}; known: {', '.join(sorted(_FIELDS))}")
        return value

    def usable(self, image: AnnotatedImage) -> bool:
        """False where the image has nothing to show for this kind."""
        told = bool(image.captions) or (self.boxes and any(box.described for box in image.boxes))
        return (told or self.sees) and (bool(image.boxes) or not self.needs_boxes)

    @property
    def sees(self) -> bool:
        """True where the image itself is part of the request."""
        return self.shows != "text"

    def render(self, image: AnnotatedImage) -> str:
        """The text of a request's user turn; empty where the image alone is shown."""
        if self.shows == "image":
            return ""
        text = "\n".join(image.captions) if self.captions else ""
        if not self.boxes or not image.boxes or not image.width or not image.height:
            return text
        boxes = image.boxes
        if len(boxes) > self.max_boxes:
            boxes = tuple(sorted(boxes, key=lambda box: -box.area)[: self.max_boxes])
        line, lines = self.box_line, []
        for box in boxes:
            x1, y1, x2, y2 = image.corners(box, self.decimals)
            lines.append(line.format(category=box.category, x1=x1, y1=y1, x2=x2, y2=y2))
        return text + "\n\n" + "\n".join(lines) if text else "\n".join(lines)
