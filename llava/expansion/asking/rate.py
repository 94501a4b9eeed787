"""Limits on what is sent: requests and tokens a minute, pauses the server asks for, and how many at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

_BURST_S = 2.0


class _Bucket:
    """A leaky bucket; `per_minute` 0 means no limit."""

    def __init__(self, per_minute: float, now: float) -> None:
        self.rate = per_minute / 60
        self.free_at = now

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` may go out."""
        return max(0.0, self.free_at - _BURST_S - now) if self.rate else 0.0

    def take(self, amount: float, now: float) -> None:
        if self.rate:
            self.free_at = max(self.free_at, now) + amount / self.rate


class RateLimiter:
    """Requests and tokens are limited separately; a pause holds everything back.

    Args:
        requests_per_minute: 0: no limit.
        tokens_per_minute: input and output together; 0: no limit.
        clock: seconds, monotonic.
    """

    def __init__(
        self, requests_per_minute: float, tokens_per_minute: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._requests = _Bucket(requests_per_minute, clock())
        self._tokens = _Bucket(tokens_per_minute, clock())
        self._paused_until = clock()
        self._turn = asyncio.Lock()

    async def acquire(self, tokens: float) -> None:
        """Wait until one request of about `tokens` may be sent; first come, first served."""
        async with self._turn:
            while True:
                now = self._clock()
                wait = max(self._requests.wait(1, now), self._tokens.wait(tokens, now), self._paused_until - now)
                if wait <= 0:
                    break
                await asyncio.sleep(min(wait, 5.0))
            self._requests.take(1, now)
            self._tokens.take(tokens, now)

    def settle(self, estimated: float, actual: float) -> None:
        """Correct the token bucket by what the request really used."""
        if self._tokens.rate:
            self._tokens.free_at += (actual - estimated) / self._tokens.rate

    def pause(self, seconds: float) -> None:
        """Send nothing for so long (Retry-After)."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)


class AdaptiveGate:
    """How many requests may be in flight: grows by one a round trip, halves when the server is overloaded (AIMD)."""

    def __init__(self, start: int, most: int) -> None:
        self.limit = float(min(start, most))
        self._most = most
        self._in_flight = 0
        self._generation = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        """Hold one place; gives the generation for `throttled`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._in_flight < int(self.limit))
            self._in_flight += 1
        try:
            yield self._generation
        finally:
            async with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    def succeeded(self) -> None:
        """One reply came back."""
        self.limit = min(self.limit + 1 / self.limit, float(self._most))

    def throttled(self, generation: int) -> None:
        """The server refused a request sent in `generation`; requests sent before the last cut do not cut again."""
        if generation == self._generation:
            self.limit = max(1.0, self.limit / 2)
            self._generation += 1
