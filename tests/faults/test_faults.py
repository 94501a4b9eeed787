"""Twenty faults of `make test-faults` in the suite; the long form is run by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import run, trials, world
from tests.faults.table import Row, table


@pytest.mark.slow
def test_twenty_faults_lose_double_and_spoil_nothing(tmp_path: Path) -> None:
    rows = run.run_all(trials.short(), tmp_path / "keep", tmp_path, orchestrators=["only-expand"])
    print(table(rows))
    assert [row.line() for row in rows if row.broken] == []
    assert sum(row.fired for row in rows) >= 20, table(rows)
    assert all(row.compared for row in rows if row.fault != "none")


def test_what_is_wrong_is_seen() -> None:
    """The table counts what broke a promise; a comparison names what differs."""
    rows = [Row("expand", "disk", "full disk", 1, 1, 1.0, ["a traceback"]), Row("expand", "disk", "none", 0, 0, 1.0)]
    assert "1 faults in 1 attempts; 1 attempts broke a promise" in table(rows)
    assert world.differences({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == ["b", "c"]


def test_the_long_form_holds_more_than_a_hundred_faults() -> None:
    planned = sum(len(fault.rules) or 1 for trial in trials.long() for fault in trial.faults)
    assert planned >= 100
    assert {trial.stage for trial in trials.long()} == set(world.STAGES)
