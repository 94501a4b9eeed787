"""A short storm: the long one is `python -m tests.expansion.asking.storm`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.expansion.asking.storm import run_storm


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_lost_paid_twice_or_over_the_budget(tmp_path: Path) -> None:
    storm = run_storm(tmp_path, 120, 3, store=False)
    assert not storm.violations
    assert storm.same_rows and storm.faults and storm.rounds >= 2, "the first budget is too small on purpose"
    assert storm.most_of_budget <= 1
    assert storm.charged <= storm.booked, "what the teacher charges is in the ledger"
