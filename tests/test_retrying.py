"""Pauses double, are bounded, and end in time."""

from __future__ import annotations

import pytest

from llava import retrying
from llava.retrying import Pauses


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(retrying, "time", fake)
    return fake


def test_so_many_attempts_and_no_pause_after_the_last(clock: Clock) -> None:
    assert list(Pauses(1, 5).attempts(most=5)) == [0, 1, 2, 3, 4]
    assert clock.slept == [1, 2, 4, 5]


def test_no_attempt_begins_after_the_deadline(clock: Clock) -> None:
    """1 + 2 + 4 = 7 seconds are slept; another 8 would end at 15, past 10."""
    assert list(Pauses(1, 100).attempts(within_s=10)) == [0, 1, 2, 3]
    assert clock.slept == [1, 2, 4]
    clock.slept.clear()
    assert list(Pauses(1, 100).attempts(within_s=7)) == [0, 1, 2, 3], "one that begins on the deadline is in time"
    assert list(Pauses(1).attempts(within_s=0)) == [0], "there is always one"


def test_a_caller_who_succeeds_sleeps_no_more(clock: Clock) -> None:
    for attempt in Pauses(1).attempts(most=9):
        if attempt == 2:
            break
    assert clock.slept == [1, 2]


def test_chance_only_shortens_and_a_late_retry_does_not_overflow() -> None:
    pauses = [Pauses(8, 8, spread=0.5).before(3) for _ in range(200)]
    assert all(4 <= pause <= 8 for pause in pauses) and len(set(pauses)) > 100
    assert Pauses(1, 60).before(5000) == 60
