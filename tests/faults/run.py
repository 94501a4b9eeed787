"""`make test-faults`: run every trial, compare what it made with the undisturbed run's, print the table.

python -m tests.faults.run                 # more than 100 faults
python -m tests.faults.run --short         # 20, as CI does
python -m tests.faults.run --stage expand  # of one stage
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava import storage
from llava.storage import clients
from tests.expansion.asking.serving import RunningTeacher, teacher
from tests.faults import attempts, trials, world
from tests.faults.attempts import End, Fault
from tests.faults.orchestrator import run_orchestrator
from tests.faults.proxy import Faults, faulting
from tests.faults.table import Row, table
from tests.faults.trials import Trial
from tests.s3_server import S3Server, moto_server

CONCURRENCY = 8
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "sk-of-a-test",
    "LLAVA_STORAGE_DEADLINE_S": "12",
}  # fmt: skip
UNDISTURBED = Fault("none")


@dataclass
class Bench:
    """What all trials share."""

    folder: Path
    local: world.World
    stored: world.World | None = None
    server: S3Server | None = None
    faults: Faults = field(default_factory=Faults)
    expected: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    count: int = 0

    def scratch(self) -> Path:
        self.count += 1
        return self.folder / "attempts" / f"{self.count:03d}"

    def environment(self) -> dict[str, str]:
        return ENVIRONMENT | (self.server.environment if self.server else {})

    def say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def undisturbed(bench: Bench, stages: Sequence[str]) -> None:
    """Run the chain once without a fault; what it makes is what every other run must make."""
    for stage in world.STAGES:
        out = storage.join(bench.local.results, stage)
        end = attempts.run(
            bench.local.command(stage, out), UNDISTURBED, Path(out), bench.scratch(), bench.environment()
        )
        if end.code:
            raise SystemExit(f"the undisturbed {stage} failed:\n{end.said[-3000:]}")
        bench.expected[stage] = world.content(out)
        bench.say(f"undisturbed {stage}: {len(bench.expected[stage])} artifacts and numbers")
        if stage == stages[-1]:
            return


@contextmanager
def a_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of its own, of `size` bytes, at `folder`."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def may_mount() -> bool:
    """True where a small disk can be had."""
    with tempfile.TemporaryDirectory() as place:
        try:
            with a_disk(Path(place) / "disk", 1 << 20):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def run_trial(bench: Bench, trial: Trial, number: int) -> None:
    """All faults of a trial, and an undisturbed attempt at the end where the last one did not end well."""
    with ExitStack() as stack:
        expected, asked = bench.expected[trial.stage], 0
        server: RunningTeacher | None = None
        if trial.teacher is not None:
            plain = stack.enter_context(teacher(bench.folder / f"teacher-{number}-plain", delay=0.05))
            out = bench.folder / f"trial-{number}-plain"
            end = attempts.run(_command(bench, trial, str(out), plain), UNDISTURBED, out, bench.scratch(), ENVIRONMENT)
            assert end.code == 0, end.said[-3000:]
            expected, asked = world.content(str(out)), len(plain.asked())
            for name in ("cost", "input_tokens", "output_tokens"):
                expected.pop(f"metric {name}")
            place = bench.folder / f"teacher-{number}"
            server = stack.enter_context(teacher(place, delay=0.05, faults=trial.teacher))
        resume = Resume(bench, trial, expected, asked, server, number)
        resume.fresh(stack)
        for fault in trial.faults:
            if resume.attempt(fault).code == 0:
                resume.fresh(stack)
        if resume.began:
            resume.attempt(UNDISTURBED)


@dataclass
class Resume:
    """The outputs of one trial, under one attempt after the other."""

    bench: Bench
    trial: Trial
    expected: dict[str, str]
    total: int
    server: RunningTeacher | None
    number: int
    out: str = ""
    began: bool = False
    held: list[Row] = field(default_factory=list)
    rounds: int = 0

    def fresh(self, stack: ExitStack) -> None:
        """Begin with empty outputs."""
        self.rounds += 1
        name = f"trial-{self.number}-{self.rounds}/{self.trial.stage}"
        self.began, self.held = False, []
        if self.trial.place == "store":
            assert self.bench.server is not None
            self.out = storage.join(self.bench.server.uri, name)
            return
        self.out = str(self.bench.folder / name)
        if self.trial.full_at:
            size = attempts.size_of(Path(self.bench.local.results) / self.trial.stage)
            stack.enter_context(a_disk(Path(self.out), int(size * self.trial.full_at)))

    def attempt(self, fault: Fault) -> End:
        """One attempt; its row is judged at once, and again when the outputs are whole."""
        self.began = True
        bench, trial = self.bench, self.trial
        asked_before = len(self.server.asked()) if self.server else 0
        paid = len(set(world.answered(Path(self.out) / "instruct_data.json.ledger"))) if self.server else 0
        if trial.full_at and not fault.full:
            subprocess.run(["mount", "-o", "remount,size=1g", self.out], check=True)
        bench.faults.rules = list(fault.rules)
        began = time.monotonic()
        end = attempts.run(
            _command(bench, trial, self.out, self.server), fault, Path(self.out), bench.scratch(), bench.environment(),
            lambda kill: setattr(bench.faults, "kill", kill),
        )  # fmt: skip
        bench.faults.rules, bench.faults.away_until = [], 0.0
        fired = end.fired + (fault.full and end.code != 0)
        if self.server and fault.name == "skewed teacher":
            fired += len({line["did"] for line in self.server.asked()[asked_before:]} - {"answered"})
        row = Row(trial.stage, trial.place, fault.name, fired, end.code, time.monotonic() - began, end.broken)
        row.broken += promised(fault, end)
        if self.server and not trial.teacher:
            asked = len(self.server.asked()) - asked_before
            if asked > self.total - paid:
                row.broken.append(f"asked {asked} times with {paid} of {self.total} replies in the ledger")
        self.held.append(row)
        bench.rows.append(row)
        if end.code == 0:
            self.compare()
        bench.say(row.line())
        if row.broken or ("store" in fault.name and end.code > 0):
            print(end.said[-2500:], flush=True)
        return end

    def compare(self) -> None:
        """The outputs are whole: are they what they must be?"""
        clients.forget_client()
        found = world.content(self.out)
        if self.server:  # a reply that was on its way may be billed; never less than the server's own books
            books = sum(line["billed"][0] * 1000 + line["billed"][1] * 10_000 for line in self.server.asked()) / 1e6
            tokens = sum(sum(line["billed"]) for line in self.server.asked())
            if sum(float(found.pop(f"metric {name}_tokens")) for name in ("input", "output")) > tokens:
                self.held[-1].broken.append(f"more tokens than the {tokens} that the server charged")
            if float(found.pop("metric cost")) < books - 1e-6:
                self.held[-1].broken.append(f"the server charged {books}")
        if wrong := world.differences(self.expected, found):
            self.held[-1].broken.append(f"other than undisturbed: {', '.join(wrong[:4])}")
        if self.server:
            ids = world.answered(Path(self.out) / "instruct_data.json.ledger")
            if len(ids) != len(set(ids)):
                self.held[-1].broken.append(f"{len(ids) - len(set(ids))} replies stand in the ledger twice")
        for row in self.held:
            row.compared = True


def promised(fault: Fault, end: End) -> list[str]:
    """What about the end of an attempt is not as promised."""
    if end.code == 0 or end.killed:
        return []
    if fault.name == "none":
        return [f"could not be resumed: exit status {end.code}"]
    if fault.name.startswith(("memory", "kill of one rank")):
        return []  # a rank's own traceback may be shown
    found = []
    if end.code != 2 or "Traceback" in end.said:
        found.append(f"ended with {end.code} and a traceback instead of a message")
    if fault.full and not any(word in end.said for word in ("disk is full", "No space left", "GiB are free")):
        found.append("no word of the full disk")
    return found


def _command(bench: Bench, trial: Trial, out: str, server: RunningTeacher | None) -> list[str]:
    given = bench.stored if trial.place == "store" and bench.stored else bench.local
    return given.command(
        trial.stage, out, server.endpoint if server else "", str(Path(bench.local.root).with_name("prices.yaml"))
    )


def run_all(chosen: Sequence[Trial], keep: Path, folder: Path, *, orchestrators: Sequence[str]) -> list[Row]:
    """Every trial; the rows of the table. World and undisturbed run lie in `keep`, the rest in `folder`."""
    with ExitStack() as stack:
        bench = Bench(folder, world.draw(keep))
        last = max((world.STAGES.index(trial.stage) for trial in chosen), default=0)
        undisturbed(bench, world.STAGES[: last + 1])
        if any(trial.place == "store" for trial in chosen):
            bench.server, bench.faults = stack.enter_context(faulting(stack.enter_context(moto_server())))
            os.environ.update(bench.server.environment)
            clients.forget_client()
            bench.stored = world.in_store(bench.local, bench.server.uri)
        small_disks = may_mount()
        for number, trial in enumerate(chosen):
            if trial.full_at and not small_disks:
                bench.say(f"{trial.stage}: no file system can be mounted here; the full disk is left out")
                continue
            run_trial(bench, trial, number)
        for package in orchestrators:
            bench.rows += run_orchestrator(package, bench.local, folder, ENVIRONMENT, bench.say)
        return bench.rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="20 faults, as CI does")
    parser.add_argument("--stage", action="append", choices=world.STAGES, help="only trials of this stage; repeat")
    parser.add_argument("--place", choices=("disk", "store"), help="only trials that write there")
    parser.add_argument("--seed", type=int, default=0, help="of the times at which is killed (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="work there, keep the undisturbed run and use it again")
    options = parser.parse_args(arguments)
    chosen: list[Any] = trials.short() if options.short else trials.long(options.seed)
    chosen = [each for each in chosen if not options.stage or each.stage in options.stage]
    chosen = [each for each in chosen if not options.place or each.place == options.place]
    orchestrators = [] if options.stage or options.place else ["only-expand"] if options.short else ["full"]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="llava-faults-") as folder:
        keep = options.folder or Path(folder)
        rows = run_all(chosen, keep, Path(folder), orchestrators=orchestrators)
    print(f"\n{table(rows)}\n{time.monotonic() - began:,.0f} s")
    return 1 if any(row.broken for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
