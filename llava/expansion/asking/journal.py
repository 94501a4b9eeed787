"""Group commit: replies that arrive while the ledger is being flushed share the next flush."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType

from llava.expansion.asking.entries import Record
from llava.expansion.asking.ledger import Ledger


class Journal:
    """Writes to a ledger from many tasks; an async context manager.

    Args:
        ledger: no other writer may use it meanwhile.
        linger: seconds to wait for more replies before a flush; an object store gets fewer, larger objects by it.
        writers: tasks that write; once so many replies wait, no more can come and lingering ends. 0: unknown.
    """

    def __init__(self, ledger: Ledger, linger: float = 0.0, writers: int = 0) -> None:
        self._ledger = ledger
        self._linger = linger
        self._writers = writers
        self._waiting: list[tuple[Record, asyncio.Future[None]]] = []
        self._more = asyncio.Event()
        self._no_more = asyncio.Event()  # lingering would be for nothing
        self._closing = False
        self._broken: Exception | None = None  # after a failed write nothing later may stand where it is missing
        self._task: asyncio.Task[None] | None = None

    async def write(self, record: Record) -> None:
        """Return when the record is durable."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((record, done))
        self._more.set()
        if len(self._waiting) == self._writers:
            self._no_more.set()
        await done

    async def __aenter__(self) -> Journal:
        self._task = asyncio.create_task(self._flush())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._more.set()
        self._no_more.set()
        if self._task is not None:
            await self._task

    async def _flush(self) -> None:
        while True:
            await self._more.wait()
            if self._linger and not self._closing:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._no_more.wait(), self._linger)
            self._more.clear()
            self._no_more.clear()
            taken, self._waiting = self._waiting, []
            if taken:
                try:
                    if self._broken:
                        raise self._broken
                    await asyncio.to_thread(self._ledger.append, [record for record, _ in taken])
                except Exception as error:
                    self._broken = error
                    for _, done in taken:
                        if not done.done():
                            done.set_exception(error)
                    continue
                for _, done in taken:
                    if not done.done():
                        done.set_result(None)
            elif self._closing:
                return
            if self._waiting or self._closing:
                self._more.set()
