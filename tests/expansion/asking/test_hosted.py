"""A real HTTP teacher with faults: every id answered once or dropped with a reason; nothing paid for twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from llava.errors import DataError, SettingsError
from llava.expansion.asking.dispatch import Outcome
from llava.expansion.asking.ledger import Ledger
from llava.expansion.asking.limits import Limits
from llava.expansion.asking.teaching import TeacherSettings, ask_all
from llava.expansion.gates.form_check import form_check
from llava.expansion.job import Job
from llava.stages.expand import STAGE, Inputs, Outputs
from llava.stages.expand_settings import Settings
from tests.expansion.asking.serving import RunningTeacher, teacher
from tests.expansion.small_job import captions, job

FAULTS = {
    "rate_limit": 0.04,
    "http500": 0.03,
    "http503": 0.02,
    "disconnect": 0.02,
    "not_json": 0.01,
    "no_choices": 0.01,
    "truncated": 0.02,
    "malformed": 0.01,
    "hostile": 0.01,
    "refusal": 0.01,
    "always_malformed": 0.01,
    "content_filter": 0.01,
}
FINAL_DROPS = ("always_malformed", "content_filter")
LIMITS = Limits(concurrency=24, first_pause=0.02, longest_pause=0.2)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    return "sk-test-0123456789"


def ask(work: Job, server: RunningTeacher, ledger: Ledger, timeout: float = 2.0, **settings: float) -> Outcome:
    return ask_all(
        work.requests(),
        TeacherSettings("openai", server.endpoint, "teacher", timeout=timeout, limits=LIMITS, **settings),  # type: ignore[arg-type]
        ledger,
        unusable=form_check(work.recipe),
        progress=lambda outcome: None,
    )


def answers(ledger: Ledger, work: Job) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for request in work.requests():
        entry = ledger.get(request.id)
        assert entry is not None, request.image.path
        found[request.id] = (entry.status, entry.text)
    return found


@pytest.mark.slow
def test_2000_requests_with_a_fifth_of_faults(tmp_path: Path) -> None:
    work = job(captions(tmp_path / "a", 2000))
    with teacher(tmp_path / "server", faults=FAULTS, key="sk-test-0123456789") as server:
        ledger = Ledger(str(tmp_path / "ledger"))
        outcome = ask(work, server, ledger)
        asked = server.asked()
    assert not outcome.stopped and not outcome.failed
    final = Counter(entry.id for entry in ledger.entries() if entry.final)
    assert len(final) == 2000 and set(final.values()) == {1}
    did = Counter(line["did"] for line in asked)
    assert sum(number for name, number in did.items() if name != "answered") > 0.18 * 2000
    assert set(did) == {*FAULTS, "answered"}, "every fault has happened"
    statuses = Counter(status for status, _ in answers(ledger, work).values())
    drops = {entry.reason.split(":")[0] for entry in ledger.entries() if entry.status == "dropped"}
    assert drops == {"grammar", "teacher"}
    faulty = {line["key"] for line in asked if line["did"] in FINAL_DROPS}
    assert statuses == {"answered": 2000 - len(faulty), "dropped": len(faulty)}
    assert all(line["auth"] for line in asked)
    ledger.close()


CHILD = """
import sys
from pathlib import Path
from tests.expansion.asking.serving import RunningTeacher
from tests.expansion.asking.test_hosted import ask
from tests.expansion.small_job import job
from llava.expansion.asking.ledger import Ledger
ledger = Ledger(sys.argv[2])
ask(job(Path(sys.argv[1])), RunningTeacher(Path("."), int(sys.argv[3])), ledger)
"""


def keys_in(ledger: Path) -> set[str]:
    """The server's keys of the replies that a ledger holds at this moment, read as a stranger would."""
    keys = set()
    for path in ledger.glob("*.jsonl"):
        for line in path.read_text().split("\n")[:-1]:
            entry = json.loads(line)
            if entry["status"] == "answered":
                keys.add(entry["text"].split("Answer:\nnumber ")[1].split("\n")[0])
    return keys


@pytest.mark.slow
def test_killed_ten_times_and_resumed_is_the_undisturbed_run(tmp_path: Path) -> None:
    path = captions(tmp_path / "a", 600)
    work = job(path)
    with teacher(tmp_path / "calm", faults=FAULTS, delay=0.02) as server:
        calm = Ledger(str(tmp_path / "calm-ledger"))
        ask(work, server, calm)
    expected = answers(calm, work)
    moments = random.Random(7)
    with teacher(tmp_path / "storm", faults=FAULTS, delay=0.05) as server:
        port = server.endpoint.split(":")[2].split("/")[0]
        kills = 0
        marks: list[tuple[int, set[str]]] = []
        for _ in range(60):
            before = sum(1 for _ in (tmp_path / "storm-ledger").glob("*.jsonl")) if kills else 0
            child = subprocess.Popen(
                [sys.executable, "-c", CHILD, str(path), str(tmp_path / "storm-ledger"), port],
                stderr=subprocess.DEVNULL if before else None,
            )
            if kills < 10:
                # The moment is counted from the child's first segment, so that it falls into the asking.
                start = time.monotonic()
                while child.poll() is None and time.monotonic() - start < 60:
                    if sum(1 for _ in (tmp_path / "storm-ledger").glob("*.jsonl")) > before:
                        break
                    time.sleep(0.01)
                time.sleep(moments.uniform(0.0, 0.15))
                if child.poll() is None:
                    os.kill(child.pid, signal.SIGKILL)
                    kills += 1
                child.wait()
                safe = keys_in(tmp_path / "storm-ledger")
                marks.append((len(server.asked()), safe))
            else:
                assert child.wait() == 0
                break
        asked = server.asked()
    assert kills == 10
    for mark, safe in marks:
        assert not safe & {line["key"] for line in asked[mark:]}, "an answered id was asked again"
    stormy = Ledger(str(tmp_path / "storm-ledger"))
    assert answers(stormy, work) == expected
    final = Counter(entry.id for entry in stormy.entries() if entry.final)
    assert set(final.values()) == {1}
    # What is asked again are the replies that were on the wire at a kill: at most the concurrency, each time.
    good = Counter(line["key"] for line in asked if line["did"] == "answered")
    assert sum(number - 1 for number in good.values()) <= 10 * LIMITS.concurrency


def test_no_answered_id_is_asked_again(tmp_path: Path) -> None:
    work = job(captions(tmp_path / "a", 40))
    with teacher(tmp_path / "server") as server:
        for _ in range(2):
            ledger = Ledger(str(tmp_path / "ledger"))
            ask(work, server, ledger)
            ledger.close()
        assert len(server.asked()) == 40


def test_a_hanging_server_is_given_up_and_asked_again_next_time(tmp_path: Path) -> None:
    work = job(captions(tmp_path / "a", 6))
    with teacher(tmp_path / "server", faults={"hang": 1.0}) as server:
        ledger = Ledger(str(tmp_path / "ledger"))
        outcome = ask(work, server, ledger, timeout=0.3)
        asked = server.asked()
    # A busy machine may let an answered request run into the timeout, too.
    assert outcome.answered == 6 and outcome.faults["timeout"] >= 6
    assert {line["key"] for line in asked if line["did"] == "hang"} == {line["key"] for line in asked}


def test_retries_are_bounded_and_the_next_run_asks_again(tmp_path: Path) -> None:
    work = job(captions(tmp_path / "a", 5))
    outcomes = []
    with teacher(tmp_path / "server", faults={"http500": 1.0}) as server:  # each request fails twice
        for _ in range(2):
            ledger = Ledger(str(tmp_path / "ledger"))
            outcomes.append(ask_within(work, server, ledger, Limits(retries=1, first_pause=0.01)))
            ledger.close()
        asked = server.asked()
    assert [(one.failed, one.answered) for one in outcomes] == [(5, 0), (0, 5)]
    assert len(asked) == 5 * 3


def test_an_endpoint_that_only_fails_stops_the_run(tmp_path: Path) -> None:
    work = job(captions(tmp_path / "a", 50))
    with teacher(tmp_path / "server", faults={"http500": 1.0}) as server:
        limits = Limits(concurrency=2, consecutive_failures=4, first_pause=0.01)
        outcome = ask_within(work, server, Ledger(str(tmp_path / "ledger")), limits)
        asked = server.asked()
    assert "failures in a row; the last: " in outcome.stopped and len(asked) < 10


def ask_within(work: Job, server: RunningTeacher, ledger: Ledger, limits: Limits) -> Outcome:
    return ask_all(
        work.requests(),
        TeacherSettings("openai", server.endpoint, "teacher", limits=limits),
        ledger,
        unusable=form_check(work.recipe),
        progress=lambda outcome: None,
    )


@pytest.mark.slow
def test_a_pause_that_the_server_asks_for_is_kept_by_all(tmp_path: Path) -> None:
    work = job(captions(tmp_path / "a", 6))
    with teacher(tmp_path / "server", faults={"rate_limit": 1.0}) as server:
        limits = Limits(concurrency=1, first_pause=0.001, longest_pause=0.001)
        outcome = ask_within(work, server, Ledger(str(tmp_path / "ledger")), limits)
        asked = server.asked()
    assert outcome.answered == 6 and [line["times"] for line in asked] == [1, 2] * 6
    # The server says 0.2 s, our own pause would be 1 ms.
    assert all(second["at"] - first["at"] >= 0.2 for first, second in zip(asked[::2], asked[1::2], strict=True))


def test_budget_stops_before_it_is_exceeded(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("models: {teacher: {input: 1000, output: 10000}}\n")
    work = job(captions(tmp_path / "a", 300))
    with teacher(tmp_path / "server", usage=[900, 50]) as server:
        ledger = Ledger(str(tmp_path / "ledger"))
        outcome = ask(work, server, ledger, prices=str(tmp_path / "prices.yaml"), max_cost=60.0)  # type: ignore[arg-type]
        asked = len(server.asked())
    assert outcome.budget and 0 < asked < 300
    assert ledger.cost == pytest.approx(asked * (900 * 1000 + 50 * 10000) / 1e6)
    assert 40 < ledger.cost <= 60


def test_an_unknown_price_with_a_budget_is_an_error() -> None:
    with pytest.raises(SettingsError, match="not in the price table"):
        TeacherSettings("openai", "http://localhost/v1", "nobody", max_cost=1.0).price()


def test_stage_stops_at_a_wrong_key_and_tells_it_to_nobody(
    tmp_path: Path, key: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = captions(tmp_path / "a", 5)
    with teacher(tmp_path / "server", key="sk-the-right-one-9876") as server, pytest.raises(DataError) as error:
        run_stage(tmp_path, path, server)
    assert "401" in str(error.value) and "sk-test" not in str(error.value)
    assert_nowhere(key, tmp_path, capfd)


def assert_nowhere(key: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The key stands in no file of a run (ledger, rows, manifests, report, card, metrics) and in no line it logged."""
    files = [file for file in (folder / "out").rglob("*") if file.is_file()]
    assert files
    assert not [file for file in files if key.encode() in file.read_bytes()]
    logged = capfd.readouterr()
    assert "expand" in logged.err and key not in logged.err + logged.out


@pytest.mark.slow
def test_stage_end_to_end_with_judge_leaves_no_secret_anywhere(
    tmp_path: Path, key: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = captions(tmp_path / "a", 30)
    with teacher(tmp_path / "server", key=key, faults={"hostile": 0.1, "http500": 0.1}) as server:
        metrics = run_stage(tmp_path, path, server, kinds="conversation,detail", judge_sample=10)
    assert metrics["rows_instruct"] >= 50 and 0 < metrics["judge_agreement"] <= 1
    assert_nowhere(key, tmp_path, capfd)
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"instruct.json.ledger", "instruct.json.manifest.json", "instruct.json.card.md", "report.html"} <= names
    line = json.loads((tmp_path / "out/instruct.json.provenance.jsonl").read_text().splitlines()[0])
    assert line["teacher"] == "teacher-2026-01-01" and line["usage"]["input"] == 100
    assert line["gates"]["grammar"] == "passed" and line["parameters"]["model"] == "teacher"


def run_stage(tmp_path: Path, path: Path, server: RunningTeacher, **settings: object) -> dict[str, float]:
    out = tmp_path / "out"
    given = {
        "annotations_uri": str(path),
        "teacher": "openai",
        "teacher_endpoint": server.endpoint,
        "teacher_model": "teacher",
        "kinds": "conversation",
        **settings,
    }
    names = {
        "pretrain_data": "pretrain.json",
        "instruct_data": "instruct.json",
        "report": "report.html",
        "metrics": "m",
    }
    outputs = Outputs(**{name: str(out / file) for name, file in names.items()})
    return STAGE.run(Settings(**given), Inputs(), outputs).metrics


def test_a_rejected_endpoint_stops_instead_of_dropping_everything(tmp_path: Path) -> None:
    work = job(captions(tmp_path / "a", 200))
    with teacher(tmp_path / "server", faults={"content_filter": 1.0}) as server:
        outcome = ask(work, server, Ledger(str(tmp_path / "ledger")))
        again = Ledger(str(tmp_path / "ledger"), reading=True)
    # Nothing was ever answered, so nothing is known to be the requests' own fault: no drop is recorded.
    assert "refused 10 requests in a row" in outcome.stopped and outcome.dropped == 0
    assert len(again) == 0 and not list(again.entries())
