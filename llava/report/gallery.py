"""Images with what was asked and answered, boxes drawn over them, and filters that need no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup
from PIL import Image, UnidentifiedImageError

from llava.redaction import visible
from llava.report.charts import COLOURS

MOST_PIXELS_A_SIDE = 360  # a report of some hundred images stays a few megabytes
_MOST_PIXELS = 50_000_000  # what is decoded for a thumbnail


@dataclass(frozen=True)
class Box:
    """A rectangle in the picture's own pixels (left, top, width, height), as COCO has it."""

    x: float
    y: float
    width: float
    height: float
    label: str = ""


@dataclass(frozen=True)
class Card:
    """One image and its lines.

    Attributes:
        image: encoded bytes, a PIL image, or None for a row without one.
        lines: text under the image, a paragraph each; shown as text, whatever is in it.
        boxes: drawn over the image.
        tone: colour of the card's edge.
        tags: what the gallery can be filtered by, e.g. `{"kind": "count", "answer": "wrong"}`.
    """

    image: bytes | Image.Image | None
    lines: Sequence[str] = ()
    boxes: Sequence[Box] = ()
    tone: Literal["good", "bad", ""] = ""
    tags: Mapping[str, str] = field(default_factory=dict)


def gallery(cards: Sequence[Card], name: str) -> Markup:
    """Cards in a grid; where cards have tags, a row of choices per tag shows only the matching cards.

    Args:
        cards: in the order shown.
        name: unique in the page; names the filters' radio buttons.
    """
    if not cards:
        return Markup('<p class="empty">nothing to show</p>')
    tags = {
        key: list(dict.fromkeys(card.tags[key] for card in cards if key in card.tags))
        for key in dict.fromkeys(key for card in cards for key in card.tags)
    }
    tags = {key: values for key, values in tags.items() if len(values) > 1}
    rules, choices = Markup(""), Markup("")
    for k, (key, values) in enumerate(tags.items()):
        choices += _choices(name, k, key, [(None, "all"), *enumerate(values)])
        for v in range(len(values)):
            rules += Markup("#{0}:has(#{0}-{1}-{2}:checked) .card:not(.t{1}-{2}){{display:none}}").format(name, k, v)
    body = Markup("").join(_card(card, tags) for card in cards)
    style = Markup("<style>{}</style>").format(rules) if tags else Markup("")
    return Markup('<div class="gallery" id="{}">{}{}<div class="cards">{}</div></div>').format(
        name, style, choices, body
    )


def _choices(name: str, k: int, key: str, options: Sequence[tuple[int | None, str]]) -> Markup:
    row = Markup("")
    for v, text in options:
        row += Markup('<label><input type="radio" name="{0}-{1}" id="{0}-{1}-{2}"{3}><span>{4}</span></label>').format(
            name, k, "all" if v is None else v, Markup(" checked") if v is None else "", text
        )
    return Markup('<div class="filter"><b>{}</b>{}</div>').format(key, row)


def _card(card: Card, tags: Mapping[str, Sequence[str]]) -> Markup:
    classes = ["card", card.tone]
    classes += [
        f"t{k}-{values.index(card.tags[key])}" for k, (key, values) in enumerate(tags.items()) if key in card.tags
    ]
    lines = Markup("").join(Markup("<p>{}</p>").format(visible(line)) for line in card.lines)
    return Markup('<div class="{}">{}<div class="lines">{}</div></div>').format(
        " ".join(part for part in classes if part), _image(card), lines
    )


def _image(card: Card) -> Markup:
    if card.image is None:
        return Markup("")
    try:
        image = Image.open(io.BytesIO(card.image)) if isinstance(card.image, bytes) else card.image
        width, height = image.size
        if width * height > _MOST_PIXELS:
            image.draft(None, (MOST_PIXELS_A_SIDE, MOST_PIXELS_A_SIDE))  # a JPEG decodes smaller; others do not
        if image.width * image.height > _MOST_PIXELS:
            return Markup('<div class="image broken">not shown: {} x {} pixels</div>').format(width, height)
        image = image.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        return Markup('<div class="image broken">not readable: {}</div>').format(type(error).__name__)
    image.thumbnail((MOST_PIXELS_A_SIDE, MOST_PIXELS_A_SIDE))
    buffer = io.BytesIO()
    # JPEG smears small drawings; an image that small costs little as PNG.
    image.save(buffer, "PNG" if max(image.size) <= 112 else "JPEG", quality=85)
    kind = "png" if max(image.size) <= 112 else "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    parts = Markup('<div class="image"><img alt="" src="{}">').format(source)
    if card.boxes:
        parts += Markup('<svg viewBox="0 0 {} {}" preserveAspectRatio="none">').format(width, height)
        for index, box in enumerate(card.boxes):
            place = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"').format(
                box.x, box.y, box.width, box.height
            )
            colour = Markup(' style="stroke:var(--c{})">').format(index % COLOURS)
            parts += place + colour + Markup("<title>{}</title></rect>").format(box.label)
        parts += Markup("</svg>")
        for index, box in enumerate(card.boxes):
            if box.label:
                # Text stands in HTML, so that it is not stretched with the image.
                parts += Markup('<span style="left:{:.1f}%;top:{:.1f}%;background:var(--c{})">{}</span>').format(
                    min(100 * box.x / width, 90), max(0, min(100 * box.y / height, 94)), index % COLOURS, box.label
                )
    return parts + Markup("</div>")
