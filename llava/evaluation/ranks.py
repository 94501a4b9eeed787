"""Several processes share the questions, one a GPU: each writes its own parts of one log, so one scorer reads them all.

A rank that fails or is killed ends the others; what all of them have answered stays, and the next run asks the rest.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from llava.errors import DataError, SettingsError, TransientError, UserError
from llava.evaluation.asking import Answered, Work, answer_share
from llava.evaluation.contenders import Lineup
from llava.evaluation.runner import LeftOut, Listener
from llava.processes import die_with_parent


class RankLost(TransientError):
    """A rank was ended from outside: no memory left, a lost GPU. Its answers are kept."""


@dataclass(frozen=True)
class _Failed:
    """A rank's `UserError`: errors with arguments of their own do not survive the way between processes."""

    message: str
    transient: bool


def rank_count(setting: str) -> int:
    """Ranks: a number as it is; `auto`: one a GPU, one where there is none.

    Raises:
        SettingsError: neither a positive number nor `auto`.
    """
    if setting == "auto":
        import torch

        return max(1, torch.cuda.device_count())
    if not setting.isdigit() or int(setting) < 1:
        raise SettingsError(f"processes: found {setting!r}; expected auto, or a number from 1")
    return int(setting)


def answer_shared(lineup: Lineup, works: Sequence[Work], listener: Listener, ranks: int) -> list[Answered]:
    """As `answer_share`, by `ranks` processes.

    Raises:
        RankLost: a rank was killed.
        UserError: what a rank found.
    """
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    lines: dict[Connection, Any] = {}
    progress: dict[tuple[str, int], tuple[float, float]] = {}
    results: dict[int, list[Answered]] = {}
    try:
        for rank in range(ranks):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(theirs, lineup, works, rank, ranks), daemon=True)
            process.start()
            theirs.close()
            lines[ours] = (rank, process)
        while len(results) < ranks:
            for ready in wait(list(lines)):
                assert isinstance(ready, Connection)
                rank, process = lines[ready]
                try:
                    message = ready.recv()
                except EOFError:
                    process.join()
                    del lines[ready]
                    if rank not in results:
                        raise RankLost(
                            f"evaluate: rank {rank} of {ranks} ended with code {process.exitcode} and without a word "
                            "(no memory left, or killed). Every answer so far is kept: run the same again"
                        ) from None
                    continue
                if isinstance(message, list):
                    results[rank] = message
                elif isinstance(message, _Failed):
                    raise (TransientError if message.transient else DataError)(message.message)
                else:
                    _tell(listener, rank, message, progress)
    finally:
        for line, (_, process) in lines.items():
            process.terminate()
            process.join()
            line.close()
    return _together([results[rank] for rank in range(ranks)])


def _tell(
    listener: Listener, rank: int, message: tuple[Any, ...], progress: dict[tuple[str, int], tuple[float, float]]
) -> None:
    kind, *rest = message
    if kind == "note" and rank == 0:
        listener.note(rest[0])
    elif kind == "count":
        listener.count(*rest)
    elif kind == "progress":
        what, done, total = rest
        progress[what, rank] = (done, total)
        every = [value for (name, _), value in progress.items() if name == what]
        listener.progress(what, sum(done for done, _ in every), sum(total for _, total in every))


def _together(shares: Sequence[list[Answered]]) -> list[Answered]:
    found = []
    for parts in zip(*shares, strict=True):
        left_out: dict[str, LeftOut] = {}
        for part in parts:
            left_out |= part.left_out
        found.append(Answered(**{**vars(parts[0]), "left_out": left_out}))
    return found


class _Line:
    """Tells the process that shows progress."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def note(self, text: str) -> None:
        self._connection.send(("note", text))

    def progress(self, what: str, done: float, total: float | None) -> None:
        self._connection.send(("progress", what, done, total or 0.0))

    def count(self, name: str, n: float = 1) -> None:
        self._connection.send(("count", name, n))


def _work(connection: Connection, lineup: Lineup, works: Sequence[Work], rank: int, ranks: int) -> None:
    die_with_parent()
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks))
    try:
        connection.send(answer_share(lineup, works, _Line(connection), rank=rank, ranks=ranks))
    except UserError as error:
        connection.send(_Failed(f"rank {rank}: {error}", isinstance(error, TransientError)))
    finally:
        connection.close()
