"""What is paid: the budget at the server's own count, holds of killed runs, refusals, the canary, judging again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llava.errors import StorageError
from llava.expansion.asking.dispatch import Outcome
from llava.expansion.asking.ledger import Ledger
from llava.expansion.asking.limits import Limits
from llava.expansion.asking.reopening import reopen
from llava.expansion.asking.settled import settle, still_open
from llava.expansion.asking.teaching import TeacherSettings, ask_all
from llava.expansion.gates.form_check import form_check, gate_check
from llava.expansion.job import Job
from llava.expansion.teachers.base import Usage
from llava.expansion.teachers.completions import usage_of
from tests.expansion.asking.serving import RunningTeacher, teacher
from tests.expansion.small_job import captions, job

USAGE = (900, 50)
COST = (900 * 1000 + 50 * 10_000) / 1e6  # of one answer, with the table below
PRICES = "models: {teacher: {input: 1000, output: 10000}}\n"
QUICK = {"first_pause": 0.01, "longest_pause": 0.05}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")


def ask(
    work: Job, server: RunningTeacher, ledger: Ledger, tmp_path: Path, *, max_cost: float = 0, timeout: float = 20.0,
    judged: Any = None, **limits: Any,
) -> Outcome:  # fmt: skip
    prices = tmp_path / "prices.yaml"
    prices.write_text(PRICES)
    settings = TeacherSettings(
        "openai",
        server.endpoint,
        "teacher",
        prices=str(prices),
        max_cost=max_cost,
        timeout=timeout,
        limits=Limits(**{"concurrency": 16, **QUICK, **limits}),
    )
    return ask_all(
        work.requests(),
        settings,
        ledger,
        unusable=form_check(work.recipe),
        judged=judged,
        progress=lambda outcome: None,
    )


def charged(server: RunningTeacher) -> float:
    """What the server's own books say."""
    total = 0.0
    for line in server.asked():
        total += (line["billed"][0] * 1000 + line["billed"][1] * 10_000) / 1e6
    return total


@pytest.mark.parametrize(
    ("faults", "timeout"),
    [
        ({"not_json": 0.06, "no_choices": 0.06, "truncated": 0.04, "disconnect": 0.04}, 2.0),
        ({"hang": 0.5, "late": 0.3}, 0.3),
    ],
)
def test_the_budget_holds_at_the_servers_own_count(tmp_path: Path, faults: dict[str, float], timeout: float) -> None:
    work = job(captions(tmp_path / "a", 300))
    with teacher(tmp_path / "server", usage=USAGE, faults=faults) as server:
        ledger = Ledger(str(tmp_path / "ledger"))
        outcome = ask(work, server, ledger, tmp_path, max_cost=80.0, timeout=timeout, consecutive_failures=10**6)
        books = charged(server)
    assert outcome.budget and 0 < books <= ledger.cost + 1e-9 <= 80.0 + 1e-9
    assert ledger.possibly_billed > 0
    ledger.close()
    assert Ledger(str(tmp_path / "ledger"), reading=True).cost == pytest.approx(ledger.cost)


def test_usage_without_an_answer_is_booked_as_it_is(tmp_path: Path) -> None:
    work = job(captions(tmp_path / "a", 10))
    with teacher(tmp_path / "server", usage=USAGE, faults={"no_choices": 1.0}) as server:
        ledger = Ledger(str(tmp_path / "ledger"))
        outcome = ask(work, server, ledger, tmp_path)
        books = charged(server)
    assert outcome.answered == 10 and ledger.cost == pytest.approx(books) == pytest.approx(20 * COST)
    assert ledger.possibly_billed == pytest.approx(10 * COST)
    assert Counter(entry.status for entry in ledger.entries()) == {"billed": 10, "answered": 10}


CHILD = """
import sys
from pathlib import Path
from llava.expansion.asking.ledger import Ledger
from tests.expansion.asking.serving import RunningTeacher
from tests.expansion.small_job import job
from tests.expansion.asking.test_money import ask
root = Path(sys.argv[1])
ask(job(root / "a/captions_train2017.json"), RunningTeacher(root / "server", int(sys.argv[2])),
    Ledger(str(root / "ledger")), root, max_cost=float(sys.argv[3]), timeout=20.0)
"""


@pytest.mark.slow
def test_what_a_killed_run_had_on_the_wire_counts_as_possibly_billed(tmp_path: Path) -> None:
    captions(tmp_path / "a", 100)
    with teacher(tmp_path / "server", usage=USAGE, delay=5.0) as server:
        port = server.endpoint.split(":")[2].split("/")[0]
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), port, "1000"])
        deadline = time.monotonic() + 60
        while len(server.asked()) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        sent = len(server.asked())
    ledger = Ledger(str(tmp_path / "ledger"))
    assert sent >= 4 and ledger.possibly_billed >= sent * COST
    # It counts against the next budget, and is not forgotten by a run that ends well.
    before = ledger.cost
    with teacher(tmp_path / "later", usage=USAGE) as server:
        ask(job(tmp_path / "a/captions_train2017.json"), server, ledger, tmp_path)
    assert ledger.cost == pytest.approx(before + 100 * COST)


def test_one_refusal_among_answers_is_that_requests_drop(tmp_path: Path) -> None:
    work = job(captions(tmp_path / "a", 120))
    with teacher(tmp_path / "server", faults={"forbidden": 0.05}) as server:
        ledger = Ledger(str(tmp_path / "ledger"))
        # One that is sure to be answered comes first: before any answer a 403 speaks of the key.
        outcome = ask(work, server, ledger, tmp_path, concurrency=1)
        refused = {line["key"] for line in server.asked() if line["did"] == "forbidden"}
    assert 0 < outcome.dropped == len(refused) < 20 and outcome.answered == 120 - len(refused) and not outcome.stopped
    reasons = {entry.reason for entry in ledger.entries() if entry.status == "dropped"}
    assert len(reasons) == 1 and reasons.pop().startswith("teacher: 403")


def test_a_run_that_resumes_with_a_refused_request_does_not_die_of_it(tmp_path: Path) -> None:
    """A kill may fall between a refusal and the reply that makes it a drop."""
    work = job(captions(tmp_path / "a", 30))
    with teacher(tmp_path / "calm") as server:
        ledger = Ledger(str(tmp_path / "ledger"))
        settings = TeacherSettings(
            "openai", server.endpoint, "teacher", limits=Limits(first_pause=0.01, longest_pause=0.05)
        )
        first = list(work.requests())[:25]
        ask_all(iter(first), settings, ledger, unusable=form_check(work.recipe), progress=lambda outcome: None)
        ledger.close()
    with teacher(tmp_path / "server", faults={"forbidden": 1.0}) as server:
        ledger = Ledger(str(tmp_path / "ledger"))
        outcome = ask(work, server, ledger, tmp_path)
    assert not outcome.stopped and outcome.failed == 5 and not outcome.dropped, "nobody knows whose fault it was"
    ledger.close()


def test_an_endpoint_that_forbids_everything_stops_at_once_and_drops_nothing(tmp_path: Path) -> None:
    work = job(captions(tmp_path / "a", 50))
    with teacher(tmp_path / "server", faults={"forbidden": 1.0}) as server:
        ledger = Ledger(str(tmp_path / "ledger"))
        outcome = ask(work, server, ledger, tmp_path)
    assert "the teacher refused: 403" in outcome.stopped and not list(ledger.entries())


def test_a_filter_in_a_200_is_dropped_once(tmp_path: Path) -> None:
    work = job(captions(tmp_path / "a", 60))
    with teacher(tmp_path / "server", faults={"filtered": 0.1}) as server:
        ledger = Ledger(str(tmp_path / "ledger"))
        outcome = ask(work, server, ledger, tmp_path)
        asked = Counter(line["key"] for line in server.asked())
    assert 0 < outcome.dropped < 20 and set(asked.values()) == {1}


@pytest.mark.slow
def test_the_canary_stops_a_teacher_whose_replies_cannot_be_used(tmp_path: Path) -> None:
    work = job(captions(tmp_path / "a", 180))
    with teacher(tmp_path / "server", faults={"always_malformed": 1.0}) as server:
        ledger = Ledger(str(tmp_path / "ledger"))
        outcome = ask(work, server, ledger, tmp_path)
        asked = len(server.asked())
    assert "50 of the first 50 replies cannot be used (grammar 50)" in outcome.stopped and asked <= 50 + 16
    assert "Answer:\\nfirst" in outcome.stopped, "what they looked like is said"
    with teacher(tmp_path / "other", faults={"always_malformed": 1.0}) as server:
        outcome = ask(work, server, Ledger(str(tmp_path / "second")), tmp_path, max_unusable=1.0)
    assert not outcome.stopped and outcome.dropped == 180


def test_the_canary_sees_what_the_gates_would_drop(tmp_path: Path) -> None:
    work = job(captions(tmp_path / "a", 180))
    with teacher(tmp_path / "server", faults={"hostile": 1.0}) as server:
        ledger = Ledger(str(tmp_path / "ledger"))
        judged = gate_check(work.recipe, work.corpus.categories, set())
        outcome = ask(work, server, ledger, tmp_path, judged=judged)
        asked = len(server.asked())
    # One question and answer are too few for the recipe, so these are found by their form already.
    assert "of the first 50 replies cannot be used" in outcome.stopped and asked <= 50 + 16


def relaxed(work: Job, **grammar: Any) -> Job:
    kinds = {
        name: kind.model_copy(update={"grammar": kind.grammar.model_copy(update=grammar)})
        for name, kind in work.recipe.kinds.items()
    }
    recipe = work.recipe.model_copy(update={"kinds": kinds})
    taught = tuple(kinds[kind.name] for kind in work.taught)
    return Job(recipe, work.kinds, taught, work.corpus, work.model, work.seed, work.blocked)


def test_new_rules_judge_the_ledger_again_for_nothing_in_both_directions(tmp_path: Path) -> None:
    work = job(captions(tmp_path / "a", 30))
    strict, loose = relaxed(work, min_turns=3), relaxed(work, min_turns=1)
    with teacher(tmp_path / "server") as server:  # its replies have two turns
        ledger = Ledger(str(tmp_path / "ledger"))
        assert ask(strict, server, ledger, tmp_path, max_unusable=1.0).dropped == 30
        paid = len(server.asked())
        assert ask(loose, server, ledger, tmp_path).answered == 0 and len(server.asked()) == paid
        assert [request.id for request in strict.requests()] == [request.id for request in loose.requests()]
        for rules, usable in ((loose, True), (strict, False), (loose, True)):
            check = form_check(rules.recipe)
            found = [settle(ledger, request, check) for request in rules.requests()]
            assert all(entry is not None and (not why) == usable for entry, why in found)
            assert not list(still_open(rules.requests(), ledger, check))
        # What was good and is not any more is not asked again by itself either.
        other = Ledger(str(tmp_path / "other"))
        assert ask(loose, server, other, tmp_path).answered == 30
        paid = len(server.asked())
        assert ask(strict, server, other, tmp_path).replies == 0 and len(server.asked()) == paid


def test_dropped_requests_are_asked_again_on_demand(tmp_path: Path) -> None:
    work = job(captions(tmp_path / "a", 20))
    ledger = Ledger(str(tmp_path / "ledger"))
    with teacher(tmp_path / "bad", faults={"always_malformed": 1.0}) as server:
        assert ask(work, server, ledger, tmp_path, max_unusable=1.0).dropped == 20
    cost = ledger.cost
    assert reopen(list(work.requests())[:15], ledger) == 15 and len(ledger) == 5 and ledger.cost == cost
    ledger.close()
    ledger = Ledger(str(tmp_path / "ledger"))
    with teacher(tmp_path / "good") as server:
        assert ask(work, server, ledger, tmp_path).answered == 15
        assert {line["times"] for line in server.asked()} == {1}
    assert len(ledger) == 20 and ledger.cost > cost


@pytest.mark.slow
def test_a_doubled_response_gives_no_row_another_images_text(tmp_path: Path) -> None:
    work = job(captions(tmp_path / "a", 200))
    with teacher(tmp_path / "server", faults={"doubled": 0.05}) as server:
        ledger = Ledger(str(tmp_path / "ledger"))
        outcome = ask(work, server, ledger, tmp_path, concurrency=4)
        assert sum(line["did"] == "doubled" for line in server.asked()) > 3
    assert outcome.answered == 200
    check = form_check(work.recipe)
    texts = [settle(ledger, request, check)[0].text for request in work.requests()]  # type: ignore[union-attr]
    # The server writes the request's own key into its reply, and keys come from the request's text.
    assert len(set(texts)) == 200
    calm = Ledger(str(tmp_path / "calm"))
    with teacher(tmp_path / "calm-server") as server:
        ask(work, server, calm, tmp_path)
    assert texts == [settle(calm, request, check)[0].text for request in work.requests()]  # type: ignore[union-attr]


def test_an_oversized_reply_is_cut_and_dropped(tmp_path: Path) -> None:
    work = job(captions(tmp_path / "a", 20))
    with teacher(tmp_path / "server", faults={"oversized": 0.3}) as server:
        ledger = Ledger(str(tmp_path / "ledger"))
        outcome = ask(work, server, ledger, tmp_path)
        large = sum(line["did"] == "oversized" for line in server.asked())
    assert outcome.dropped == large > 0 and outcome.answered == 20 - large
    assert all(len(entry.text) <= 1000 for entry in ledger.entries() if entry.status == "dropped")


def test_usage_that_cannot_be_is_refused(tmp_path: Path) -> None:
    for wrong in (-1, float("nan"), float("inf"), 1e300, "many", True, 1.5, 10**9):
        assert usage_of({"prompt_tokens": wrong, "completion_tokens": 5}) is None
        assert usage_of({"prompt_tokens": 5, "completion_tokens": wrong}) is None
    assert usage_of({"prompt_tokens": 100.0, "completion_tokens": 5}) == Usage(100, 0, 5)
    work = job(captions(tmp_path / "a", 8))
    with teacher(tmp_path / "server", usage=USAGE, faults={"absurd_usage": 1.0}) as server:
        ledger = Ledger(str(tmp_path / "ledger"))
        assert ask(work, server, ledger, tmp_path).answered == 8
        assert charged(server) <= ledger.cost < 1e6 and ledger.usage == Usage()


FULL = """
import resource, sys
from pathlib import Path
from tests.expansion.asking.serving import RunningTeacher
from tests.expansion.small_job import job
from tests.expansion.asking.test_money import ask
from llava.expansion.asking.ledger import Ledger
root = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
ask(job(root / "a/captions_train2017.json"), RunningTeacher(root / "server", int(sys.argv[2])),
    Ledger(str(root / "ledger")), root)
"""


@pytest.mark.slow
def test_a_full_disk_is_a_plain_error_and_loses_nothing_that_was_written(tmp_path: Path) -> None:
    work = job(captions(tmp_path / "a", 300))
    with teacher(tmp_path / "server", usage=USAGE) as server:
        port = server.endpoint.split(":")[2].split("/")[0]
        command = [sys.executable, "-c", FULL, str(tmp_path), port]
        failed = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert failed.returncode == 1 and "cannot be written" in failed.stderr and "possibly billed" in failed.stderr
        assert StorageError.__name__ in failed.stderr
        ledger = Ledger(str(tmp_path / "ledger"))
        kept = len(ledger)
        assert 10 < kept < 300 and charged(server) <= ledger.cost
        asked = len(server.asked())
        assert ask(work, server, ledger, tmp_path).answered == 300 - kept
        assert len(server.asked()) == asked + 300 - kept
