"""The preview: pictures with boxes and what was made from them, kept and dropped, filters by kind and gate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from pathlib import PurePosixPath

from llava import storage
from llava.errors import StorageError
from llava.expansion.assembly import Result
from llava.expansion.pictures import Picture
from llava.expansion.rows import Row
from llava.expansion.sampling import Group
from llava.report import Box, Card

_LONGEST_LINE = 600
_MOST_BOXES = 20


def preview_cards(
    sample: Sequence[tuple[Group, Result]], rows: Sequence[Row], pictures: Iterable[Picture], images_uri: str
) -> list[Card]:
    """One card a result or row, kind after kind, kept and dropped ones side by side.

    A picture that cannot be read leaves its card without one, and says so.

    Args:
        rows: of the kinds that no teacher writes.
        pictures: of the whole job; those of `rows` are looked up.
    """
    wanted = {row.image for row in rows}
    known = {picture.image: picture for picture in pictures if picture.image in wanted} if wanted else {}
    images = _Images(images_uri)
    cards = [_card(images, known[row.image], row.kind, _turns(row), kept=True) for row in rows]
    for kind in dict.fromkeys(kind for (kind, _), _ in sample):
        kept = [_of_result(images, result) for (name, gate), result in sample if name == kind and not gate]
        dropped = [_of_result(images, result) for (name, gate), result in sample if name == kind and gate]
        cards += [card for card in chain.from_iterable(zip_longest(kept, dropped)) if card]
    return cards


def _of_result(images: _Images, result: Result) -> Card:
    request, row = result.request, result.row
    if row is not None:
        flags = [f"flag {finding.gate}: {finding.reason}" for finding in result.findings]
        return _card(images, request.picture, request.kind, [*_turns(row), *flags], kept=True)
    gate = next(finding.gate for finding in result.findings if finding.hard)
    text = result.entry.text if result.entry is not None else ""
    lines = [f"dropped by {result.reason}", *_short(text).splitlines()]
    return _card(images, request.picture, request.kind, lines, kept=False, gate=gate)


def _card(
    images: _Images, picture: Picture, kind: str, lines: Sequence[str], *, kept: bool, gate: str = "passed all"
) -> Card:
    image = images.read(picture.image)
    missing = ["(picture not found)"] if image is None and images.uri else []
    shown = [f"{kind} · {PurePosixPath(picture.image).name}", *missing, *lines]
    return Card(
        image,
        [_short(line) for line in shown if line],
        [Box(box.x, box.y, box.width, box.height, box.category) for box in picture.boxes[:_MOST_BOXES]],
        "good" if kept else "bad",
        {"kind": kind, "row": "kept" if kept else "dropped", "gate": gate},
    )


def _turns(row: Row) -> list[str]:
    lines = []
    for human, answer in row.turns:
        question = " ".join(human.replace("<image>", "").split())
        lines += [f"Q: {question}" if question else "", f"A: {answer}"]
    return lines


class _Images:
    """Bytes of pictures, each read once; None for one that cannot be read."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._read: dict[str, bytes | None] = {}

    def read(self, image: str) -> bytes | None:
        if self.uri and image not in self._read:
            try:
                self._read[image] = storage.read_bytes(storage.join(self.uri, image))
            except StorageError:
                self._read[image] = None
        return self._read.get(image)


def _short(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} … ({len(line)} characters)"
