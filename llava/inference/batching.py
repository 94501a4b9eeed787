"""Requests that wait, answered several at once by one thread that owns the model.

A batch is what waits when the one before has ended, so a single client waits for nobody and many share the model. The
queue is bounded: who comes when it is full is told at once, instead of waiting for what never comes.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from llava.inference.protocol import Refused
from llava.model.generation import GenerationRequest, generate


@dataclass(frozen=True)
class Piece:
    """New text of an answer.

    Attributes:
        text: what is new.
        tokens: length of the whole answer; set on the last piece.
        cut: on the last piece: the answer was cut at its longest.
    """

    text: str
    tokens: int | None = None
    cut: bool = False


@dataclass
class _Waiting:
    """A request on its way, and where its answer goes."""

    request: GenerationRequest
    loop: asyncio.AbstractEventLoop
    pieces: asyncio.Queue[Piece | Exception]
    gone: threading.Event = field(default_factory=threading.Event)

    def put(self, piece: Piece | Exception) -> None:
        """From the model's thread to the client's."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.pieces.put_nowait, piece)


class Batcher:
    """Owns a model, and answers what is given to it."""

    def __init__(self, model: Any, processor: Any, *, batch_size: int, waiting: int) -> None:
        """Start the thread.

        Args:
            batch_size: answered at once.
            waiting: may wait behind those; more are refused.
        """
        self._model, self._processor, self._batch_size = model, processor, batch_size
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(waiting)
        self.batches = 0
        self._thread = threading.Thread(target=self._run, name="llava-batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that no batch has taken yet."""
        return self._queue.qsize()

    @property
    def alive(self) -> bool:
        """False once the thread has ended."""
        return self._thread.is_alive()

    async def answer(self, request: GenerationRequest) -> AsyncIterator[Piece]:
        """An answer's text as it is written.

        Raises:
            Refused: too many wait, or the model failed.
        """
        waiting = _Waiting(request, asyncio.get_running_loop(), asyncio.Queue())
        try:
            self._queue.put_nowait(waiting)
        except queue.Full:
            message = f"{self._queue.maxsize} requests wait already; try again in a moment"
            raise Refused(429, "rate_limit_exceeded", message) from None
        try:
            while True:
                piece = await waiting.pieces.get()
                if isinstance(piece, Exception):
                    raise Refused(500, "generation_failed", f"the model failed: {piece}") from piece
                yield piece
                if piece.tokens is not None:
                    return
        finally:
            waiting.gone.set()  # nobody listens any more; one that still waits is not answered

    def close(self) -> None:
        """End after the batch in progress."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            batch, ending = [first], False
            while len(batch) < self._batch_size:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    ending = True
                    break
                batch.append(more)
            self._answer([one for one in batch if not one.gone.is_set()])
            if ending:
                return

    def _answer(self, batch: list[_Waiting]) -> None:
        if not batch:
            return
        self.batches += 1
        written = [False] * len(batch)

        def stream(index: int, piece: str) -> None:
            text = piece if written[index] else piece.lstrip()  # templates leave the space before an answer to it
            if text:
                written[index] = True
                batch[index].put(Piece(text))

        def ended(index: int, tokens: int, *, cut: bool) -> None:
            batch[index].put(Piece("", tokens, cut))

        try:
            longest = max(one.request.max_new_tokens or 1 for one in batch)
            generate(
                self._model, self._processor, [one.request for one in batch], batch_size=len(batch),
                max_new_tokens=longest, stream=stream, ended=ended,
            )  # fmt: skip
        except Exception as error:
            for one in batch:
                one.put(error)
