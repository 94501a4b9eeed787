"""Ranks as threads of one process: they share work and exchange results as real ones do, without a process group."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
Note = Callable[[int, int], None]


@dataclass
class _World:
    size: int
    given: list[Any]
    barrier: threading.Barrier


@dataclass
class ThreadRank:
    """One of them; has what `llava.data.check.Workers` asks for."""

    rank: int
    world: _World = field(repr=False)

    @property
    def world_size(self) -> int:
        return self.world.size

    def each(self, what: str, work: Callable[[Note], T], shown: Note | None = None) -> list[T]:
        self.world.given[self.rank] = work(shown or (lambda done, total: None))
        self.world.barrier.wait(60)
        everything = list(self.world.given)
        self.world.barrier.wait(60)
        return everything


def on_ranks(size: int, work: Callable[[ThreadRank], T]) -> list[T]:
    """What `work` gives on each of `size` ranks."""
    world = _World(size, [None] * size, threading.Barrier(size))

    def run(rank: int) -> T:
        try:
            return work(ThreadRank(rank, world))
        except BaseException:
            world.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))
