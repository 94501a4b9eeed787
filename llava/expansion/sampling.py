"""A small sample of a long stream, the same in every run: the results with the smallest request ids."""

from __future__ import annotations

import heapq

from llava.expansion.assembly import Result

Group = tuple[str, str]
"""(kind, gate that dropped it); an empty gate for kept rows."""


class Sampler:
    """Keeps `each` results of every kind and gate; ids are hashes, so the smallest are a fair sample."""

    def __init__(self, each: int) -> None:
        self._each = each
        self._heaps: dict[Group, list[tuple[int, Result]]] = {}

    def see(self, result: Result) -> None:
        """Look at one result."""
        gate = next((finding.gate for finding in result.findings if finding.hard), "")
        heap = self._heaps.setdefault((result.request.kind, gate), [])
        rank = -int(result.request.id, 16)
        if len(heap) < self._each:
            heapq.heappush(heap, (rank, result))
        elif heap and rank > heap[0][0]:
            heapq.heapreplace(heap, (rank, result))

    def results(self) -> list[tuple[Group, Result]]:
        """The sample, group by group."""
        return [
            (group, result)
            for group in sorted(self._heaps)
            for _, result in sorted(self._heaps[group], key=lambda pair: -pair[0])
        ]
