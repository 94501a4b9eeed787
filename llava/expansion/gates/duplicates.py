"""Duplicates: the same row again, or nearly the same text for another image (MinHash with LSH, Broder 1997)."""

from __future__ import annotations

import hashlib
import re

from llava.expansion.gates.base import Sample

_PERMUTATIONS = 128
_BANDS = 32
_SHINGLE = 3


class DuplicateGate:
    """Exact: same image, kind and text. Near: long texts whose word shingles agree, whatever the image.

    Short rows are not compared across images: "What color is the bus?" - "red" is rightly there many times.

    Args:
        similarity: Jaccard similarity of word 3-grams from which texts count as the same.
        min_words: shortest text that is compared across images.
    """

    name = "duplicates"

    def __init__(self, similarity: float = 0.7, min_words: int = 30) -> None:
        self._similarity = similarity
        self._min_words = min_words
        self._exact: set[bytes] = set()
        self._sketches: list[object] = []
        self._index: object | None = None

    def check(self, sample: Sample) -> str:
        """How the sample repeats an earlier one; otherwise the sample is remembered."""
        words = re.findall(r"\w+", sample.text.lower())
        key = hashlib.sha256(f"{sample.kind.name}\n{sample.image.path}\n{' '.join(words)}".encode()).digest()
        if key in self._exact:
            return "exactly the same row as before"
        answer_words = len(re.findall(r"\w+", sample.answers))
        if answer_words >= self._min_words:
            near = self._near(words)
            if near:
                return near
        self._exact.add(key)
        return ""

    def _near(self, words: list[str]) -> str:
        import rensa

        shingles = {" ".join(words[k : k + _SHINGLE]) for k in range(len(words) - _SHINGLE + 1)}
        sketch = rensa.RMinHash(_PERMUTATIONS, 1)
        sketch.update(sorted(shingles))
        if self._index is None:
            self._index = rensa.RMinHashLSH(self._similarity, _PERMUTATIONS, _BANDS)
        index = self._index
        assert isinstance(index, rensa.RMinHashLSH)
        for number in index.query(sketch):
            other = self._sketches[number]
            similarity = sketch.jaccard(other)
            if similarity >= self._similarity:
                return f"nearly the same text as an earlier row (similarity {similarity:.2f})"
        index.insert(len(self._sketches), sketch)
        self._sketches.append(sketch)
        return ""
