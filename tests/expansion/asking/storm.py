"""An expansion in a storm: every fault of the teacher, kills, a second process, a full disk, a store that goes away.

    python -m tests.expansion.asking.storm --requests 2100 --kills 20 [--store]

`llava expand` is started again and again until it ends by itself. After each round the ledger is read as a stranger
would, and the teacher's own log is held against it: nothing that was answered is asked again, and what the teacher
charges is never above the budget. In the end the rows are those of a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from llava.expansion.asking.entries import Entry, decode
from tests.expansion.asking.serving import RunningTeacher, teacher
from tests.expansion.small_job import captions, job
from tests.s3_server import S3Server, rclone_server

KEY = "sk-test-0123456789"
LASTING = {"always_malformed": 0.01, "content_filter": 0.01, "filtered": 0.01, "forbidden": 0.005, "oversized": 0.005}
PASSING = {
    "rate_limit": 0.03, "http500": 0.03, "http503": 0.02, "disconnect": 0.02, "hang": 0.01, "late": 0.01,
    "not_json": 0.01, "no_choices": 0.01, "truncated": 0.02, "malformed": 0.01, "hostile": 0.01, "refusal": 0.01,
    "absurd_usage": 0.01, "doubled": 0.01,
}  # fmt: skip
PRICE = (1000.0, 10_000.0)  # a million tokens, in and out
USAGE = (900, 50)
COST = (USAGE[0] * PRICE[0] + USAGE[1] * PRICE[1]) / 1e6
HOLD = 800.0  # about what one killed run has in flight at its worst case, and holds twice of
ROWS = ("instruct_data.json", "pretrain_data.json")


@dataclass
class Storm:
    """What was done and what came of it; `violations` is empty or the promise is broken."""

    rounds: int = 0
    kills: int = 0
    refused_second_processes: int = 0
    full_disks: int = 0
    store_cuts: int = 0
    asked: int = 0
    faults: int = 0
    charged: float = 0.0
    booked: float = 0.0
    budget: float = 0.0
    most_of_budget: float = 0.0
    same_rows: bool = False
    violations: list[str] = field(default_factory=list)


@dataclass
class _World:
    folder: Path
    annotations: Path
    server: RunningTeacher
    ledger: str
    stored: Path  # the ledger's files, wherever the run believes them to be
    store: S3Server | None
    known: set[str] = field(default_factory=set)  # ids that had an end when a round began
    mark: int = 0  # lines of the teacher's log before that round

    def command(self, out: str, budget: float) -> list[str]:
        return [
            str(Path(sys.executable).parent / "llava"), "expand", "--annotations-uri", str(self.annotations),
            "--kinds", "conversation,detail", "--teacher", "openai", "--teacher-endpoint", self.server.endpoint,
            "--teacher-model", "teacher", "--prices", str(self.folder / "prices.yaml"), "--max-cost", str(budget),
            "--request-timeout-s", "2", "--ledger-uri", self.ledger, "--out", str(self.folder / out),
            "--max-retries", "20",
        ]  # fmt: skip

    def start(self, out: str, budget: float, *, largest_file: int = 0) -> subprocess.Popen[str]:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        environment = {**os.environ, "OPENAI_API_KEY": KEY, **(self.store.environment if self.store else {})}
        return subprocess.Popen(
            self.command(out, budget),
            env=environment,
            preexec_fn=limit if largest_file else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def entries(self) -> Iterator[Entry]:
        """Every whole line of every segment; a line whose checksum is wrong is an error here."""
        for path in sorted(self.stored.glob("segment-*.jsonl")):
            for line in path.read_bytes().split(b"\n")[:-1]:
                record = decode(line)
                if isinstance(record, Entry):
                    yield record

    def final(self) -> set[str]:
        return {entry.id for entry in self.entries() if entry.final}


def charged(lines: list[dict[str, object]]) -> float:
    """What the teacher's own books say."""
    pairs = [line["billed"] for line in lines]
    return float(sum((one[0] * PRICE[0] + one[1] * PRICE[1]) / 1e6 for one in pairs if isinstance(one, list)))


def run_storm(folder: Path, requests: int, kills: int, *, store: bool, seed: int = 7) -> Storm:
    """`requests` are of two kinds, half of each."""
    storm, lot = Storm(), random.Random(seed)
    annotations = captions(folder / "a", requests // 2)
    (folder / "prices.yaml").write_text(f"models: {{teacher: {{input: {PRICE[0]}, output: {PRICE[1]}}}}}\n")
    keys = _keys(annotations)
    calm = _calm(folder, annotations)
    with ExitStack() as stack:
        server = stack.enter_context(
            teacher(folder / "server", faults={**LASTING, **PASSING}, key=KEY, usage=list(USAGE), delay=0.05)
        )
        s3 = stack.enter_context(_store(folder / "store")) if store else None
        ledger = f"{s3.uri}/ledger" if s3 else str(folder / "ledger")
        stored = folder / "store" / s3.bucket / "ledger" if s3 else folder / "ledger"
        world = _World(folder, annotations, server, ledger, stored, s3)
        # Half of what the whole will cost is too little: the first rounds run into it. Then there is enough.
        for storm.budget in (0.5 * requests * COST, 4 * requests * COST + kills * HOLD):
            _rounds(world, storm, lot, kills // 2 if storm.kills == 0 else kills, keys)
        storm.asked = len(server.asked())
        storm.faults = sum(1 for line in server.asked() if line["did"] != "answered")
        storm.charged, storm.booked = charged(server.asked()), sum(entry.cost for entry in world.entries())
        storm.same_rows = all((folder / "out" / name).read_bytes() == (calm / name).read_bytes() for name in ROWS)
        finals = Counter(entry.id for entry in world.entries() if entry.final)
        if len(finals) != len(keys):
            storm.violations.append(f"{len(keys) - len(finals)} of {len(keys)} requests have no end")
        _again(world, storm)
    return storm


def _rounds(world: _World, storm: Storm, lot: random.Random, kills: int, keys: dict[str, str]) -> None:
    """Start and disturb until it has ended by itself, by success or by the budget, after so many kills in all."""
    while True:
        storm.rounds += 1
        before = len(list(world.stored.glob("segment-*")))
        kind = (
            "end"
            if storm.kills >= kills
            else lot.choice(("kill", "kill", "kill", "two", "cut" if world.store else "disk"))
        )
        size = max((path.stat().st_size for path in world.stored.glob("segment-*")), default=0)
        child = world.start("out", storm.budget, largest_file=40_000 + size // 10 if kind == "disk" else 0)
        if kind in ("kill", "two", "cut"):
            _until_asking(world, child, before)
            time.sleep(lot.uniform(0.0, 0.6))
        if kind == "two":
            _second(world, storm, child)
        if kind == "cut" and world.store:
            world.store.kill()
            time.sleep(lot.uniform(0.5, 4.0))
            world.store.start_again()
            storm.store_cuts += 1
            time.sleep(lot.uniform(0.0, 1.0))
        if kind in ("kill", "two", "cut") and child.poll() is None:
            child.send_signal(signal.SIGKILL)
            storm.kills += 1
        _, said = child.communicate(timeout=600)
        if child.returncode > 0 and kind == "disk":
            storm.full_disks += "cannot be written" in said
        elif child.returncode > 0 and "budget" not in said and kind not in ("cut",):
            storm.violations.append(f"round {storm.rounds} ({kind}) ended with: {said[-600:]}")
        _look(world, storm, keys)
        over = "budget" in said or child.returncode == 0
        if over and (storm.kills >= kills or child.returncode == 0 or "could exceed the budget" in said):
            return
        if storm.rounds > 40 * (kills + 1) or len(storm.violations) > 5:
            return


def _look(world: _World, storm: Storm, keys: dict[str, str]) -> None:
    """Hold the teacher's log against the ledger as they stand between two rounds."""
    asked = world.server.asked()
    again = [keys[line["key"]] for line in asked[world.mark :] if keys.get(line["key"]) in world.known]
    if again:
        storm.violations.append(f"round {storm.rounds}: {len(again)} answered ids were asked again")
    world.known, world.mark = world.final(), len(asked)
    share = charged(asked) / storm.budget
    storm.most_of_budget = max(storm.most_of_budget, share)
    if share > 1:
        storm.violations.append(f"round {storm.rounds}: {share:.0%} of the budget charged")


def _until_asking(world: _World, child: subprocess.Popen[str], before: int) -> None:
    deadline = time.monotonic() + 60
    while child.poll() is None and time.monotonic() < deadline:
        if len(list(world.stored.glob("segment-*"))) > before:
            return
        time.sleep(0.01)


def _second(world: _World, storm: Storm, first: subprocess.Popen[str]) -> None:
    other = world.start("other", storm.budget)
    _, said = other.communicate(timeout=600)
    if "another run has it open" not in said:
        if first.poll() is not None:  # it had ended meanwhile, so there was nobody to be kept from
            return
        storm.violations.append(f"round {storm.rounds}: a second process was let in: {said[-300:]}")
    storm.refused_second_processes += 1


def _again(world: _World, storm: Storm) -> None:
    """Other rules and back: nothing is asked, and the rows are the same again."""
    before = len(world.server.asked())
    first = [(world.folder / "out" / name).read_bytes() for name in ROWS]
    for more in (["--gates-off", "grammar,repetition,counts,duplicates,balance"], []):
        done = subprocess.run(
            [*world.command("out", storm.budget), *more],
            env={**os.environ, "OPENAI_API_KEY": KEY, **(world.store.environment if world.store else {})},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            storm.violations.append(f"judging again ended with: {done.stderr[-600:]}")
    if [(world.folder / "out" / name).read_bytes() for name in ROWS] != first:
        storm.violations.append("judging again, there and back, changed the rows")
    if any(line["did"] not in LASTING for line in world.server.asked()[before:]):
        storm.violations.append("judging again asked the teacher")


def _calm(folder: Path, annotations: Path) -> Path:
    """The same job before a teacher that only refuses what it will never answer."""
    with teacher(folder / "calm-server", faults=LASTING, key=KEY, usage=list(USAGE)) as server:
        world = _World(folder, annotations, server, str(folder / "calm-ledger"), folder / "calm-ledger", None)
        child = world.start("calm", 1e9)
        _, said = child.communicate(timeout=600)
        assert child.returncode == 0, said[-2000:]
    return folder / "calm"


def _keys(annotations: Path) -> dict[str, str]:
    """The teacher's key of every request -> its id."""
    found = {}
    for request in job(annotations, kinds="conversation,detail").requests():
        messages = request.messages()
        text = str(len(messages)) + request.context
        found[hashlib.sha256(text.encode()).hexdigest()[:16]] = request.id
    return found


@contextmanager
def _store(folder: Path) -> Iterator[S3Server]:
    with rclone_server(folder) as server:
        yield server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2100)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--store", action="store_true", help="the ledger lies in a store that goes away at times")
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        storm = run_storm(Path(folder), options.requests, options.kills, store=options.store)
    for name, value in vars(storm).items():
        print(f"{name:26} {value if not isinstance(value, float) else round(value, 3)}")
    print(f"{'seconds':26} {time.monotonic() - start:.0f}")
    raise SystemExit(bool(storm.violations) or not storm.same_rows)


if __name__ == "__main__":
    main()
