"""The page of a run under way."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from llava.expansion.asking.dispatch import Outcome
from llava.expansion.showing.live import LivePage, clock


def test_it_shows_what_is_kept_dropped_spent_and_why_it_stopped(tmp_path: Path) -> None:
    uri = tmp_path / "report.html"
    live = LivePage(str(uri), 1000, "USD", "rows for trying")
    outcome = Outcome(answered=237, dropped=11, faults=Counter({"timeout": 3}))
    live.update(outcome, 1.25)
    page = uri.read_text()
    assert '<meta http-equiv="refresh" content="5">' in page and "rows for trying" in page
    assert all(word in page for word in ("248 of 1,000", ">237<", ">11<", ">1.25<", "time left", "timeout"))
    outcome.answered = 300
    live.update(outcome, 2.0)
    assert uri.read_text() == page, "written again within its five seconds"
    live.update(outcome, 2.0, stopped="<b>no money</b>")
    page = uri.read_text()
    assert "&lt;b&gt;no money&lt;/b&gt;" in page and "refresh" not in page and ">300<" in page


def test_a_place_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    LivePage(str(tmp_path / "file" / "report.html"), 10, "USD").update(Outcome(answered=1), 0.0)


def test_time_left_is_read_by_people() -> None:
    assert (clock(59), clock(61), clock(7260)) == ("0 min 59 s", "1 min 1 s", "2 h 1 min")
