"""Long work that every rank does for itself, while the ranks stay in touch.

A collective that waits for the slowest rank's store is ended by a watchdog after half an hour, with a message about
collectives. Here the work runs in a thread, and the ranks meet every second in a small exchange of their own: nothing
waits longer than that for anybody who lives, a rank that fails ends all of them at once with its own message, and a
rank that has gone is noticed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from llava.errors import TransientError

T = TypeVar("T")
Progress = Callable[[int, int], None]
BEAT_S = 1.0
SILENCE = timedelta(minutes=10)
_group: dist.ProcessGroup | None = None
_group_of: object = None


class RankSilentError(TransientError):
    """A rank no longer answers: its process hangs, or its node is gone."""


def in_touch(what: str, work: Callable[[Progress], T], shown: Progress | None = None) -> T:
    """Run `work` on every rank, each its own part; returns when all are done. Collective.

    Args:
        what: said in messages: "checking rows".
        work: given a function to call with (done, total) of its part.
        shown: called on every rank with the sums of those over all ranks.

    Raises:
        UserError: what `work` raised here; or, where it raised on another rank, that rank's message.
        RankSilentError: a rank did not answer for `SILENCE`.
    """
    own = [0, 0]

    def note(done: int, total: int) -> None:
        own[:] = done, total

    if dist.get_world_size() == 1:
        return work(lambda done, total: shown(done, total) if shown is not None else None)
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work(note))
        except BaseException as error:  # raised below, in the thread that the ranks wait in
            failure.append(error)

    thread = threading.Thread(target=run, name="llava-in-touch", daemon=True)
    thread.start()
    group = _control_group()
    while True:
        thread.join(BEAT_S)
        beat = torch.tensor([thread.is_alive(), bool(failure), *own], dtype=torch.int64)
        try:
            dist.all_reduce(beat, group=group)
        except RuntimeError as error:
            if "timed out" in str(error).lower():
                raise RankSilentError(
                    f"{what}: a rank has not answered for {SILENCE.total_seconds() / 60:.0f} minutes; its process "
                    "hangs or its node is gone: see the nodes' logs, and start again with the same outputs to resume"
                ) from error
            raise
        running, failed, done, total = beat.tolist()
        if shown is not None and total:
            shown(done, total)
        if failed:
            break
        if not running:
            return result[0]
    if failure:
        raise failure[0]
    raise OtherRankFailed(f"{what}: another rank failed, and says why")


class Ranks:
    """All ranks of the process group, as `llava.data.check` shares its work among them."""

    @property
    def rank(self) -> int:
        """This one's number."""
        return dist.get_rank()

    @property
    def world_size(self) -> int:
        """How many there are."""
        return dist.get_world_size()

    def each(self, what: str, work: Callable[[Progress], T], shown: Progress | None = None) -> list[T]:
        """As `in_touch`; what `work` gave on every rank. Collective."""
        return gathered(in_touch(what, work, shown))


class OtherRankFailed(RuntimeError):
    """Only the news that another rank failed: connection closed, so to speak (`worker.LOST_PEER`)."""


def gathered(value: T) -> list[T]:
    """Every rank's value, on every rank. Values travel through host memory, never through a GPU's. Collective."""
    if dist.get_world_size() == 1:
        return [value]
    values: list[T] = [value] * dist.get_world_size()
    dist.all_gather_object(values, value, group=_control_group())
    return values


def _control_group() -> dist.ProcessGroup:
    """A gloo group beside the one that trains: it works for CPU tensors, and has a deadline of its own."""
    global _group, _group_of
    world = dist.group.WORLD
    if _group is None or _group_of is not world:
        _group, _group_of = dist.new_group(backend="gloo", timeout=SILENCE), world
    assert _group is not None
    return _group
