"""The preview: images with boxes and what was made from them, kept and dropped, filters by kind and gate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from pathlib import PurePosixPath

from llava.data.image_error import ImageError
from llava.data.images import ImageSource
from llava.errors import StorageError
from llava.expansion.rows.assembly import Result
from llava.expansion.rows.row import Row
from llava.expansion.rows.sampling import Group
from llava.expansion.sources.corpus import AnnotatedImage
from llava.image_token import IMAGE_TOKEN
from llava.report import Box, Card

_LONGEST_LINE = 600
_MOST_BOXES = 20


def preview_cards(
    sample: Sequence[tuple[Group, Result]], rows: Sequence[Row], images: Iterable[AnnotatedImage], images_uri: str
) -> list[Card]:
    """One card a result or row, kind after kind, kept and dropped ones side by side.

    An image that cannot be read leaves its card without one, and says so.

    Args:
        rows: of the kinds that no teacher writes.
        images: of the whole job; those of `rows` are looked up.
    """
    wanted = {row.image for row in rows}
    known = {image.path: image for image in images if image.path in wanted} if wanted else {}
    files = _ImageFiles(images_uri)
    cards = [_card(files, known[row.image], row.kind, _turns(row), kept=True) for row in rows]
    for kind in dict.fromkeys(kind for (kind, _), _ in sample):
        kept = [_of_result(files, result) for (name, gate), result in sample if name == kind and not gate]
        dropped = [_of_result(files, result) for (name, gate), result in sample if name == kind and gate]
        cards += [card for card in chain.from_iterable(zip_longest(kept, dropped)) if card]
    return cards


def _of_result(files: _ImageFiles, result: Result) -> Card:
    request, row = result.request, result.row
    if row is not None:
        flags = [f"flag {finding.gate}: {finding.reason}" for finding in result.findings]
        scores = [f"{name}: {score:.3g}" for name, score in result.scores.items()]
        return _card(files, request.image, request.kind, [*_turns(row), *flags, *scores], kept=True)
    gate = next(finding.gate for finding in result.findings if finding.hard)
    text = result.entry.text if result.entry is not None else ""
    lines = [f"dropped by {result.reason}", *_short(text).splitlines()]
    return _card(files, request.image, request.kind, lines, kept=False, gate=gate)


def _card(
    files: _ImageFiles,
    image: AnnotatedImage,
    kind: str,
    lines: Sequence[str],
    *,
    kept: bool,
    gate: str = "passed all",
) -> Card:
    data = files.read(image.path)
    missing = ["(image not found)"] if data is None and files.uri else []
    shown = [f"{kind} · {PurePosixPath(image.path).name}", *missing, *lines]
    return Card(
        data,
        [_short(line) for line in shown if line],
        [Box(box.x, box.y, box.width, box.height, box.category) for box in image.boxes[:_MOST_BOXES]],
        "good" if kept else "bad",
        {"kind": kind, "row": "kept" if kept else "dropped", "gate": gate},
    )


def _turns(row: Row) -> list[str]:
    lines = []
    for human, answer in row.turns:
        question = " ".join(human.replace(IMAGE_TOKEN, "").split())
        lines += [f"Q: {question}" if question else "", f"A: {answer}"]
    return lines


class _ImageFiles:
    """Bytes of images, each read once; None for one that cannot be read."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._source = ImageSource(uri)
        self._read: dict[str, bytes | None] = {}

    def read(self, path: str) -> bytes | None:
        if self.uri and path not in self._read:
            try:
                self._read[path] = self._source.read(path)
            except (ImageError, StorageError):
                self._read[path] = None
        return self._read.get(path)


def _short(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} … ({len(line)} characters)"
