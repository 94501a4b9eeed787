"""Batch jobs by hand of nobody, against a real HTTP server with the three providers' forms."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llava.errors import DataError
from llava.expansion.asking.batch_run import BatchLimits, cancel_all
from llava.expansion.asking.dispatch import Judged, Outcome
from llava.expansion.asking.ledger import Ledger
from llava.expansion.asking.limits import Limits
from llava.expansion.asking.teaching import TeacherSettings, ask_in_batches
from llava.expansion.job import Job
from llava.expansion.teachers.batch_interfaces import open_batches
from tests.expansion.asking.batch_provider import GOOD, Handler, Provider, batch_provider, endpoint
from tests.expansion.small_job import captions, job

FORMS = ("openai", "anthropic", "gemini")


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, "sk-test-0123456789")
    with batch_provider() as server:
        yield server


def ask(
    work: Job, server: Provider, form: Any, ledger: Ledger, prices: Path, max_cost: float = 0.0,
    batch: BatchLimits | None = None, judged: Judged | None = None,
) -> Outcome:  # fmt: skip
    prices.write_text("models: {teacher: {input: 1, output: 1}}\n")
    settings = TeacherSettings(
        "openai", endpoint(server), "teacher", prices=str(prices), max_cost=max_cost, timeout=5.0, mode="batch",
        limits=Limits(retries=2, first_pause=0.01, longest_pause=0.02), batch_form=form,
        batch=batch or BatchLimits(requests=4, poll_s=0.01),
    )  # fmt: skip
    return ask_in_batches(
        work.requests, settings, ledger, unusable=lambda kind, reply: "" if reply.text == GOOD else "form: other",
        note=lambda text: None, progress=lambda outcome: None, judged=judged,
    )  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_all_is_answered_what_failed_is_sent_again_and_nothing_else_twice(
    provider: Provider, tmp_path: Path, form: str
) -> None:
    work = job(captions(tmp_path, 10), kinds="conversation")
    provider.fail_first, provider.lose = {1}, 1
    ledger = Ledger(str(tmp_path / "ledger"))
    outcome = ask(work, provider, form, ledger, tmp_path / "p.yaml")
    ids = [request.id for request in work.requests()]
    assert not outcome.stopped and all(one in ledger for one in ids)
    assert max(len(one["lines"]) for one in provider.jobs.values()) == 4
    assert set(provider.asked) == set(ids)
    assert len(provider.asked) == len(ids) + len(provider.failed) and provider.failed
    assert ledger.cost == pytest.approx(len(ids) * 95 * 0.5 / 1e6)
    ledger.close()


@pytest.mark.parametrize("form", FORMS)
def test_a_killed_run_finds_its_jobs_again(provider: Provider, tmp_path: Path, form: str) -> None:
    work = job(captions(tmp_path, 6), kinds="conversation")
    provider.lose = 99  # the first run hears of no creation, and dies of it
    ledger = Ledger(str(tmp_path / "ledger"))
    look = Handler.do_GET
    Handler.do_GET = lambda self: self.connection.close()  # type: ignore[method-assign]
    try:
        with pytest.raises(DataError):
            ask(work, provider, form, ledger, tmp_path / "p.yaml")
    finally:
        Handler.do_GET = look  # type: ignore[method-assign]
    assert ledger.possibly_billed > 0
    ledger.close()
    provider.lose = 0
    again = Ledger(str(tmp_path / "ledger"))
    ask(work, provider, form, again, tmp_path / "p.yaml")
    assert sorted(provider.asked) == sorted(request.id for request in work.requests())
    assert all(request.id in again for request in work.requests())
    again.close()


def test_the_budget_is_kept_before_submission(provider: Provider, tmp_path: Path) -> None:
    work = job(captions(tmp_path, 6), kinds="conversation")
    ledger = Ledger(str(tmp_path / "ledger"))
    outcome = ask(work, provider, "openai", ledger, tmp_path / "p.yaml", max_cost=1e-6)
    assert outcome.budget and not provider.jobs
    ledger.close()


def test_cancelled_jobs_are_cancelled_at_the_provider(provider: Provider, tmp_path: Path) -> None:
    from llava.expansion.asking.entries import BatchJob

    provider.add("k", [])
    ledger = Ledger(str(tmp_path / "ledger"))
    ledger.append([BatchJob("k", 1, "openai", "submitted", job="job-0", ids=("a",), hold=1.0)])
    assert cancel_all(open_batches("openai", endpoint(provider), 5.0), ledger) == 1
    assert provider.jobs["job-0"]["cancelled"]
    ledger.close()


def test_the_first_job_is_a_canary(provider: Provider, tmp_path: Path) -> None:
    """Of 200 requests whose replies are all useless 50 are paid for, and what they looked like is said."""
    provider.text = "As an AI language model I cannot see images."
    work = job(captions(tmp_path, 200), kinds="conversation")
    ledger = Ledger(str(tmp_path / "ledger"))
    outcome = ask(work, provider, "openai", ledger, tmp_path / "p.yaml", batch=BatchLimits(poll_s=0.01))
    assert len(provider.asked) == 50 and "50 of 50 replies" in outcome.stopped
    assert "form: other: 'As an AI language model" in outcome.stopped
    ledger.close()


def test_what_the_gates_would_drop_stops_a_batch_too(provider: Provider, tmp_path: Path) -> None:
    work = job(captions(tmp_path, 200), kinds="conversation")
    ledger = Ledger(str(tmp_path / "ledger"))
    outcome = ask(
        work, provider, "openai", ledger, tmp_path / "p.yaml", batch=BatchLimits(poll_s=0.01),
        judged=lambda request, reply: "leakage: 'the caption'",
    )  # fmt: skip
    assert len(provider.asked) == 50 and "50 of the first 50 replies cannot be used (leakage 50)" in outcome.stopped
    ledger.close()


def test_after_a_good_canary_all_is_sent_at_once(provider: Provider, tmp_path: Path) -> None:
    work = job(captions(tmp_path, 200), kinds="conversation")
    ledger = Ledger(str(tmp_path / "ledger"))
    outcome = ask(
        work, provider, "openai", ledger, tmp_path / "p.yaml", batch=BatchLimits(poll_s=0.01),
        judged=lambda request, reply: "",
    )  # fmt: skip
    assert not outcome.stopped and [len(one["lines"]) for one in provider.jobs.values()] == [50, 150]
    assert outcome.answered == 200 and len(set(provider.asked)) == len(provider.asked) == 200
    ledger.close()


def test_a_job_is_never_larger_than_the_provider_takes(provider: Provider, tmp_path: Path) -> None:
    work = job(captions(tmp_path, 40), kinds="conversation")
    line = max(len(open_batches("openai", endpoint(provider), 5.0).line(request)) for request in work.requests())
    ledger = Ledger(str(tmp_path / "ledger"))
    ask(work, provider, "openai", ledger, tmp_path / "p.yaml", batch=BatchLimits(bytes=line * 7, poll_s=0.01, canary=0))
    assert max(provider.sizes) <= line * 7 and len(provider.sizes) >= 6
    assert sorted(provider.asked) == sorted(request.id for request in work.requests())
    ledger.close()
    small = Ledger(str(tmp_path / "small"))
    with pytest.raises(DataError, match=rf"request \w+ \(.*\): \d+ bytes; a job holds {line // 2}"):
        ask(work, provider, "openai", small, tmp_path / "p.yaml", batch=BatchLimits(bytes=line // 2, canary=0))
    small.close()


def test_a_full_queue_is_waited_for(provider: Provider, tmp_path: Path) -> None:
    """No more tokens than allowed are under way; a provider that says its queue is full is asked again later."""
    work = job(captions(tmp_path, 12), kinds="conversation")
    tokens = [len(json.dumps(request.body())) * 0.4 for request in work.requests()]
    provider.too_many_tokens = 1
    limits = BatchLimits(requests=4, enqueued_tokens=int(max(tokens) * 6), poll_s=0.01, canary=0)
    ledger = Ledger(str(tmp_path / "ledger"))
    outcome = ask(work, provider, "openai", ledger, tmp_path / "p.yaml", batch=limits)
    assert not outcome.stopped and outcome.answered == 12
    assert provider.most_open <= 2  # of six requests' tokens: one job of four, and one of two
    assert sorted(provider.asked) == sorted(request.id for request in work.requests())
    ledger.close()


def test_too_many_jobs_for_the_provider_are_sent_when_one_has_ended(provider: Provider, tmp_path: Path) -> None:
    work = job(captions(tmp_path, 12), kinds="conversation")
    ledger = Ledger(str(tmp_path / "ledger"))
    sent = 0

    def busy(what: str) -> None:
        nonlocal sent
        sent += what == "create"
        if what == "create" and sent == 1:
            provider.refuse = 1

    provider.event = busy
    outcome = ask(
        work, provider, "openai", ledger, tmp_path / "p.yaml", batch=BatchLimits(requests=4, poll_s=0.01, canary=0)
    )
    assert not outcome.stopped and outcome.answered == 12 and provider.refuse == 0
    assert sorted(provider.asked) == sorted(request.id for request in work.requests())
    assert ledger.possibly_billed == 0
    ledger.close()


@pytest.mark.parametrize("form", FORMS)
def test_a_job_cancelled_under_a_live_run_ends_it_and_is_not_sent_again(
    provider: Provider, tmp_path: Path, form: Any
) -> None:
    work = job(captions(tmp_path, 8), kinds="conversation")
    uri = str(tmp_path / "ledger")
    provider.frozen = True
    looks = 0

    def cancel(what: str) -> None:  # as `llava expand cancel-batch` does, beside the run that waits
        nonlocal looks
        looks += what == "look"
        if looks == 3:
            beside = Ledger(uri, reading=True)
            assert cancel_all(open_batches(form, endpoint(provider), 5.0), beside) == 1
            beside.close()

    provider.event = cancel
    ledger = Ledger(uri)
    limits = BatchLimits(poll_s=0.01)
    outcome = ask(work, provider, form, ledger, tmp_path / "p.yaml", batch=limits)
    assert "was cancelled" in outcome.stopped and outcome.answered == 4 and len(provider.asked) == 8
    provider.frozen = False
    outcome = ask(work, provider, form, ledger, tmp_path / "p.yaml", batch=limits)
    assert not outcome.stopped and all(request.id in ledger for request in work.requests())
    assert len(provider.asked) == 8 + 4  # what the cancelled job had answered is not asked again
    ledger.close()


@pytest.mark.slow
def test_kills_while_sending_waiting_and_collecting_ask_nothing_twice(provider: Provider, tmp_path: Path) -> None:
    """The command itself, killed at its first and its later creations, looks and fetches, until it is through."""
    path = captions(tmp_path / "a", 120)
    command = [
        sys.executable, "-m", "llava", "expand", "--annotations-uri", str(path), "--teacher", "openai",
        "--teacher-endpoint", endpoint(provider), "--teacher-model", "teacher", "--kinds", "conversation",
        "--mode", "batch", "--batch-requests", "50", "--batch-poll-s", "0.05", "--max-dropped", "1", "--gates-off",
        "duplicates,balance", "--pretrain-data", str(tmp_path / "out/p.json"), "--instruct-data",
        str(tmp_path / "out/i.json"), "--report", str(tmp_path / "out/r.html"), "--metrics", str(tmp_path / "out/m"),
    ]  # fmt: skip
    provider.text = f"{GOOD}\n===\nQuestion:\nIs it big?\n===\nAnswer:\nit is small"
    plan = ["create", "look", "fetch", "create", "fetch", "look"]
    running: subprocess.Popen[bytes] | None = None

    def kill(what: str) -> None:
        if plan and what == plan[0] and running is not None:
            plan.pop(0)
            running.send_signal(signal.SIGKILL)

    provider.event = kill
    ends = []
    for _ in range(12):
        running = subprocess.Popen(command, env={**os.environ}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        said = running.communicate(timeout=120)[1]
        ends.append(running.returncode)
        if running.returncode == 0:
            break
        assert running.returncode == -signal.SIGKILL, said.decode()[-2000:]
    assert ends[-1] == 0 and len(ends) == 7 and not plan, ends
    assert len(provider.asked) == len(set(provider.asked)) == 120
    assert len(json.loads((tmp_path / "out/i.json").read_text())) == 120
