"""Image-text similarity as a filter: rows whose text a CLIP finds far from the image are dropped.

The score is CLIPScore (Hessel et al. 2021, arXiv:2104.08718): 2.5 times the cosine of image and text embedding, 0 where
that is negative. A text longer than the model reads is scored in pieces of whole sentences, and their mean counts.

Scores are kept beside the ledger as they come, so another threshold, or a second start, computes nothing. What computes
them needs torch (`clip_scores`); what reads them does not.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from llava import storage
from llava.data.image_error import ImageError
from llava.data.images import ImageSource
from llava.errors import DataError, SettingsError
from llava.expansion.gates import Finding
from llava.expansion.opinions.thresholds import Thresholds, read_thresholds
from llava.expansion.rows.assembly import Opinion, Result
from llava.expansion.rows.row import Row
from llava.json_lines import lines_of

HIGHEST = 2.5
_SCORER = "llava.expansion.opinions.clip_scores"  # by name: images without torch do without it
_AT_ONCE = 32
_PART = 2_048  # rows a file


class Scorer(Protocol):
    """What computes scores of (image file's bytes, its path, text)."""

    def scores(self, pairs: list[tuple[bytes, str, str]]) -> list[float]:
        """A CLIPScore for each."""
        ...


@dataclass(frozen=True)
class SimilaritySettings:
    """Attributes:
    model: folder, URI or hub id of a CLIP or SigLIP with both its towers; empty: none is asked.
    thresholds: the lowest score of a row that stays, as the setting has it; empty: rows are scored, none dropped.
    """

    model: str = ""
    thresholds: str = ""

    def read(self, kinds: Iterable[str]) -> Thresholds:
        """The lowest score of each kind.

        Raises:
            SettingsError: no number, outside 0 to 2.5, or a kind that is not made.
        """
        return read_thresholds("clip_threshold", self.thresholds, [*kinds], default=0.0, low=0.0, high=HIGHEST)


@dataclass
class Similarity:
    """Scores of rows, by image and text.

    Attributes:
        uri: folder of the scores.
        unscored: rows whose image could not be read; they stay, and are counted.
        seen: kind -> scores of rows that passed the gates, for the report.
    """

    model: str
    uri: str
    thresholds: Thresholds
    unscored: int = 0
    dropped: int = 0
    seen: dict[str, list[float]] = field(default_factory=dict)
    name: str = "similarity"

    def __post_init__(self) -> None:
        self._scores: dict[str, float | None] = {}
        self._parts = 0
        for item in storage.list_files(self.uri) if storage.exists(self.uri) else []:
            if not item.path.startswith("part-"):
                continue
            self._parts += 1
            uri = storage.join(self.uri, item.path)
            for number, line in lines_of(storage.read_text(uri)):
                try:
                    key, score = json.loads(line)
                    self._scores[str(key)] = None if score is None else float(score)
                except (ValueError, TypeError) as error:
                    raise DataError(f"{uri}: line {number + 1}: {line[:80]!r}; expected [key, score]") from error

    def fill(self, results: Iterable[Result], images_uri: str, progress: Callable[[int], None]) -> int:
        """Score the rows that have none; returns how many were scored now.

        Raises:
            SettingsError: torch is not here, or the model cannot score.
            DataError: every image is unreadable.
        """
        missing = self._missing(results)
        source, done, failed = ImageSource(images_uri), 0, 0
        scorer: Scorer | None = None
        while part := list(islice(missing, _PART)):
            scorer = scorer or open_scorer(self.model)
            lines: list[tuple[str, float | None]] = []
            for start in range(0, len(part), _AT_ONCE):
                readable: list[tuple[str, tuple[bytes, str, str]]] = []
                for key, path, text in part[start : start + _AT_ONCE]:
                    try:
                        readable.append((key, (source.read(path), path, text)))
                    except ImageError:
                        lines.append((key, None))
                try:
                    scored = scorer.scores([pair for _, pair in readable])
                except ImageError:  # one of them is no image: find out which
                    for key, pair in readable:
                        try:
                            lines.append((key, scorer.scores([pair])[0]))
                        except ImageError:
                            lines.append((key, None))
                else:
                    lines += zip((key for key, _ in readable), scored, strict=True)
                done += len(readable)
                progress(done)
            failed += sum(score is None for _, score in lines)
            if failed == len(lines) and not self._scores:
                raise DataError(f"images_uri: none of the first {failed} images of {images_uri} can be read")
            self._scores |= dict(lines)
            text = "".join(f"{json.dumps(line)}\n" for line in lines)
            storage.write_text(storage.join(self.uri, f"part-{self._parts:06d}.jsonl"), text)
            self._parts += 1
        return done

    def reset(self) -> None:
        """Forget what was counted, not the scores: for rows that are looked at more than once."""
        self.unscored = self.dropped = 0
        self.seen = {}

    def __call__(self, result: Result) -> Opinion:
        """The row's score, and whether it is below what its kind needs."""
        assert result.row is not None
        score = self._scores.get(self._key(result.row))
        if score is None:
            self.unscored += 1
            return Opinion(None)
        kind = result.request.kind
        self.seen.setdefault(kind, []).append(score)
        least = self.thresholds.of(kind)
        if score >= least:
            return Opinion(score)
        self.dropped += 1
        return Opinion(score, Finding(self.name, f"CLIPScore {score:.3f}, and {least:g} is the least"))

    def _missing(self, results: Iterable[Result]) -> Iterator[tuple[str, str, str]]:
        asked: set[str] = set()
        for result in results:
            if result.row is None:
                continue
            key = self._key(result.row)
            if key not in self._scores and key not in asked:
                asked.add(key)
                yield key, result.row.image, text_of(result.row)

    def _key(self, row: Row) -> str:
        return hashlib.sha256(f"{self.model}\n{row.image}\n{text_of(row)}".encode()).hexdigest()[:32]


def text_of(row: Row) -> str:
    """What is compared with the image: the answers; a question may name what is not there."""
    return " ".join(answer.strip() for _, answer in row.turns)


def open_scorer(model: str) -> Scorer:
    """What computes scores.

    Raises:
        SettingsError: torch or transformers are not here, or the model is none that can.
    """
    try:
        module: Any = importlib.import_module(_SCORER)
    except ImportError as error:
        raise SettingsError(
            "clip_model: rows are to be scored, and torch is not here; install the extra train, or start the same "
            f"expansion once where it is, with the same ledger_uri: scores are kept beside the ledger ({error})"
        ) from error
    scorer: Scorer = module.ClipScorer(model)
    return scorer
