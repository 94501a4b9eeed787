"""A bound on the time of a whole call to a store, whatever its library does inside.

Timeouts of HTTP libraries bound the silence between two packets: a server that sends one byte a second keeps them
waiting for ever. Here an operation has a deadline; every byte that arrives or is to be sent moves it on by what the
slowest link worth waiting for would take. The call runs in a thread of its own, which is left behind when its time is
over.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from llava.errors import SettingsError

T = TypeVar("T")

SLOWEST = 16 * 1024  # bytes a second
_local = threading.local()


class TooSlow(Exception):
    """The time of the operation is over."""


def deadline_s() -> float:
    """Seconds that an operation may take beside its bytes (LLAVA_STORAGE_DEADLINE_S).

    Raises:
        SettingsError: no number of seconds.
    """
    text = os.environ.get("LLAVA_STORAGE_DEADLINE_S", "") or "120"
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e7:
        raise SettingsError(f"LLAVA_STORAGE_DEADLINE_S: found {text!r}; expected seconds, above 0")
    return seconds


class Clock:
    """The time one operation has, all its attempts together.

    Args:
        size: bytes that it will send.
    """

    def __init__(self, size: int = 0) -> None:
        self._end = time.monotonic() + deadline_s() + size / SLOWEST
        self.requests = 0

    def moved(self, count: int) -> None:
        """`count` bytes have come."""
        self._end += count / SLOWEST

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()


def moved(count: int) -> None:
    """Tell the operation that runs in this thread that bytes have come."""
    if (clock := current()) is not None:
        clock.moved(count)


def current() -> Clock | None:
    """The clock of the operation that runs in this thread."""
    return getattr(_local, "clock", None)


def watched(call: Callable[[], T], clock: Clock) -> T:
    """What `call` gives, or raises, within the time of `clock`.

    Raises:
        TooSlow: its time is over.
    """
    result: list[T] = []
    failure: list[BaseException] = []
    over = threading.Event()
    clock.requests = 0

    def run() -> None:
        _local.clock = clock
        try:
            result.append(call())
        except BaseException as error:  # raised in the caller's thread
            failure.append(error)
        finally:
            over.set()

    threading.Thread(target=run, name="llava-storage", daemon=True).start()
    while not over.wait(max(0.0, min(clock.left, 60.0))):
        if clock.left <= 0:
            raise TooSlow(
                f"no answer, or less than {SLOWEST // 1024} KiB a second, in the time that LLAVA_STORAGE_DEADLINE_S "
                "gives"
            )
    if failure:
        raise failure[0]
    return result[0]
