"""A ledger in an object store: one run at a time, on stores that honour conditional writes and on one that does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from llava import storage
from llava.errors import SettingsError
from llava.expansion.asking import lease
from llava.expansion.asking.lease import Holder, Lease
from llava.expansion.asking.ledger import Ledger
from tests.expansion.asking.test_spending import entry
from tests.s3_server import S3Server, moto_s3, rclone_s3  # noqa: F401

CHILD = """
import sys, time
from llava.expansion.asking.ledger import Ledger
from tests.expansion.asking.test_spending import entry
ledger = Ledger(sys.argv[1], "the first run")
ledger.append([entry("a")])
ledger.append([entry("b")])
print("ready", flush=True)
time.sleep(600)
"""
ELSEWHERE = Holder("t", "expand to s3://b/rows", 0, "pod-1", 7, "pod-1 boot ns", "7 123", "2026-01-01T00:00:00Z", 60.0)


@pytest.fixture(params=["rclone_s3", "moto_s3"])
def uri(request: pytest.FixtureRequest) -> str:
    server: S3Server = request.getfixturevalue(request.param)
    return storage.join(server.uri, "ledger")


def write(uri: str, holder: Holder) -> None:
    storage.write_json(storage.join(uri, "lease.json"), asdict(holder))


def holder_of(uri: str) -> dict[str, object] | None:
    found = storage.read_tagged(storage.join(uri, "lease.json"))
    return json.loads(found.data) if found else None


def segments(uri: str) -> list[str]:
    return [item.path for item in storage.list_files(uri) if item.path.startswith("segment-")]


@pytest.mark.slow
def test_killed_with_kill_9_the_next_run_goes_on_at_once(uri: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, uri], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    with pytest.raises(SettingsError) as caught:
        Ledger(uri)
    for part in (uri, "the first run", f"process {child.pid}", "since 20", "another ledger_uri", "expires 60 s"):
        assert part in str(caught.value)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert holder_of(uri) is not None and len(segments(uri)) == 2  # nothing was tidied up
    again = Ledger(uri)
    assert "a" in again and "b" in again and again.cost == 1.0
    again.append([entry("c")])
    again.close()
    assert holder_of(uri) is None
    third = Ledger(uri)
    assert len(third) == 3 and third.cost == 1.5
    third.close()


@pytest.mark.slow
def test_objects_are_merged_on_close_and_a_crash_in_between_counts_once(uri: str) -> None:
    ledger = Ledger(uri)
    ledger.append([entry("a")])
    ledger.append([entry("b")])
    # Not closed: what was appended counts without it.
    small = {name: storage.read_bytes(storage.join(uri, name)) for name in segments(uri)}
    assert len(small) == 2
    ledger.close()
    assert len(segments(uri)) == 1
    for path, data in small.items():
        storage.write_bytes(storage.join(uri, path), data)
    again = Ledger(uri)
    assert again.cost == 1.0 and len(again) == 2 and again.attempts("b") == 1
    again.close()


@pytest.mark.slow
def test_a_run_on_another_machine_is_waited_for_until_its_lease_expires(uri: str) -> None:
    write(uri, replace(ELSEWHERE, expire_s=3.0))
    said: list[str] = []
    start = time.monotonic()
    taken = Lease(uri, note=said.append, look_s=0.1, settle_s=0.1)
    assert time.monotonic() - start > 1.5 and "pod-1" in said[0] and len(said) == 1
    assert (found := holder_of(uri)) and found["pid"] == os.getpid()
    taken.release()
    assert holder_of(uri) is None


@pytest.mark.slow
def test_a_run_on_another_machine_that_renews_its_lease_is_an_error(uri: str) -> None:
    write(uri, ELSEWHERE)
    renewal = threading.Timer(1.0, write, (uri, replace(ELSEWHERE, renewals=1)))
    renewal.start()
    with pytest.raises(SettingsError, match="another run has it open: expand to s3://b/rows .host pod-1"):
        Lease(uri, look_s=0.1)
    renewal.join()
    assert (found := holder_of(uri)) and found["token"] == "t"


@pytest.mark.slow
def test_a_retried_task_takes_over_at_once(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(uri, ELSEWHERE)
    monkeypatch.setenv("KFP_RETRY_INDEX", "1")
    said: list[str] = []
    taken = Lease(uri, ELSEWHERE.run, note=said.append, settle_s=0.1)
    assert not said and (found := holder_of(uri)) and found["attempt"] == 1
    taken.release()


@pytest.mark.slow
def test_a_run_that_lost_its_lease_keeps_what_it_paid_for_and_stops(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = dict(Lease.__init__.__kwdefaults__ or {})
    monkeypatch.setattr(Lease.__init__, "__kwdefaults__", {**defaults, "renew_s": 0.2})
    ledger = Ledger(uri)
    ledger.append([entry("a")])
    write(uri, ELSEWHERE)  # as after a long sleep of this one

    def go_on() -> None:
        for _ in range(300):
            ledger.append([entry("b")])
            time.sleep(0.1)

    with pytest.raises(SettingsError, match="expand to s3://b/rows .* took it over"):
        go_on()
    ledger.close()
    assert (found := holder_of(uri)) and found["token"] == "t", "the other run's lease was released"
    kept = "".join(storage.read_text(storage.join(uri, name)) for name in segments(uri))
    assert '"id": "a"' in kept and '"id": "b"' in kept


@pytest.mark.slow
def test_the_lease_is_renewed_in_the_background(uri: str) -> None:
    held = Lease(uri, renew_s=0.1, settle_s=0.1)
    deadline = time.monotonic() + 30
    while not ((found := holder_of(uri)) and int(str(found["renewals"])) >= 3):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    held.check()
    held.release()


@pytest.mark.slow
def test_of_many_that_open_at_once_one_gets_it(uri: str) -> None:
    start = threading.Barrier(6)
    held: list[Lease] = []
    refused: list[str] = []

    def open_one() -> None:
        start.wait()
        try:
            held.append(Lease(uri, settle_s=5.0))  # a busy machine writes late
        except SettingsError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=open_one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1 and len(refused) == 5
    held[0].check()
    held[0].release()


@pytest.mark.slow
def test_a_damaged_ledger_gives_its_lease_back(uri: str) -> None:
    storage.write_text(storage.join(uri, "segment-1.jsonl"), "{broken\n")
    for _ in range(2):
        with pytest.raises(Exception, match="line 1 is damaged"):
            Ledger(uri)
    assert holder_of(uri) is None


@pytest.mark.slow
def test_who_only_reads_is_not_held_up_and_cannot_write(uri: str) -> None:
    assert len(Ledger(uri, reading=True)) == 0, "there is none yet"
    writer = Ledger(uri, "the run")
    writer.append([entry("a")])
    reader = Ledger(uri, reading=True)
    assert "a" in reader and reader.cost == 0.5
    with pytest.raises(RuntimeError, match="opened for reading"):
        reader.append([entry("b")])
    reader.close()
    writer.append([entry("b")])
    writer.close()


def test_a_process_that_is_gone_is_known_to_be() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    known = lease._process(child.pid)
    assert known.startswith(f"{child.pid} ")
    child.kill()
    time.sleep(0.2)
    assert lease._process(child.pid) == ""  # a corpse that nobody has waited for
    child.wait()
    assert lease._process(child.pid) == ""
