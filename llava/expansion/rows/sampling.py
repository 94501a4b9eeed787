"""A small sample of a long stream, the same in every run: what has the smallest ids, or hashes of ids."""

from __future__ import annotations

import hashlib
import heapq
from typing import Any

from llava.expansion.rows.assembly import Result
from llava.expansion.rows.row import Row

Group = tuple[str, str]
"""(kind, gate that dropped it); an empty gate for kept rows."""


class Sampler:
    """Keeps `each` results of every kind and gate, and `each` rows of every kind that no teacher writes.

    Request ids are hashes, so the smallest are a fair sample.
    """

    def __init__(self, each: int) -> None:
        self._each = each
        self._heaps: dict[Group, list[tuple[int, Result]]] = {}
        self._rows: dict[str, list[tuple[int, str, Row]]] = {}

    def see(self, result: Result) -> None:
        """Look at one result."""
        gate = next((finding.gate for finding in result.findings if finding.hard), "")
        heap = self._heaps.setdefault((result.request.kind, gate), [])
        rank = -int(result.request.id, 16)
        self._keep(heap, (rank, result))

    def see_row(self, row: Row) -> None:
        """Look at one row made from the annotations alone."""
        heap = self._rows.setdefault(row.kind, [])
        rank = -int.from_bytes(hashlib.sha256(row.id.encode()).digest()[:8], "big")
        self._keep(heap, (rank, row.id, row))

    def _keep(self, heap: list[Any], item: tuple[Any, ...]) -> None:
        """`item`, if its rank is among the `each` highest."""
        if len(heap) < self._each:
            heapq.heappush(heap, item)
        elif heap and item[0] > heap[0][0]:
            heapq.heapreplace(heap, item)

    def results(self, each: int | None = None) -> list[tuple[Group, Result]]:
        """The sample, group by group; of every kind and gate only the first `each`."""
        return [
            (group, result)
            for group in sorted(self._heaps)
            for _, result in sorted(self._heaps[group], key=lambda pair: -pair[0])[:each]
        ]

    def rows(self) -> list[Row]:
        """The sample of rows that no teacher wrote, kind by kind."""
        return [row for heap in self._rows.values() for _, _, row in sorted(heap, key=lambda item: -item[0])]
