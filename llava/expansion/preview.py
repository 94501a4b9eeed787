"""The preview: pictures with boxes and what was made from them, kept and dropped, filters by kind and gate."""

from __future__ import annotations

from collections.abc import Sequence

from llava import storage
from llava.errors import StorageError
from llava.expansion.assembly import Result
from llava.expansion.sampling import Group
from llava.report import Box, Card

_LONGEST_LINE = 600
_MOST_BOXES = 20


def preview_cards(sample: Sequence[tuple[Group, Result]], images_uri: str) -> list[Card]:
    """One card a result; a picture that cannot be read leaves its card without one, and says so."""
    pictures: dict[str, bytes | None] = {}
    cards = []
    for (kind, gate), result in sample:
        picture = result.request.picture
        if picture.image not in pictures:
            pictures[picture.image] = _read(images_uri, picture.image)
        image = pictures[picture.image]
        lines = [f"{kind} · {picture.image}"]
        if image is None and images_uri:
            lines.append("(picture not found)")
        if result.row is not None:
            for human, answer in result.row.turns:
                question = " ".join(human.replace("<image>", "").split())
                lines += [f"Q: {question}" if question else "", f"A: {answer}"]
            lines += [f"flag {finding.gate}: {finding.reason}" for finding in result.findings]
        else:
            lines.append(f"dropped by {result.reason}")
            lines.append(result.entry.text if result.entry is not None else "")
        boxes = [Box(box.x, box.y, box.width, box.height, box.category) for box in picture.boxes[:_MOST_BOXES]]
        cards.append(
            Card(
                image,
                [_short(line) for line in lines if line],
                boxes,
                "good" if result.row is not None else "bad",
                {"kind": kind, "row": "kept" if result.row is not None else "dropped", "gate": gate or "passed all"},
            )
        )
    return cards


def _read(images_uri: str, image: str) -> bytes | None:
    if not images_uri:
        return None
    try:
        return storage.read_bytes(storage.join(images_uri, image))
    except StorageError:
        return None


def _short(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} … ({len(line)} characters)"
