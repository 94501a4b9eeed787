"""`make test-faults`: run every trial, compare what it made with the undisturbed run's, print the table.

python -m tests.faults.run                 # more than 100 faults
python -m tests.faults.run --short         # 20, as CI does
python -m tests.faults.run --stage expand  # of one stage
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llava import storage
from llava.storage import clients
from tests.expansion.asking.serving import RunningTeacher, teacher
from tests.faults import attempts, memory, trials, world
from tests.faults.attempts import End, Fault
from tests.faults.bench import ENVIRONMENT, UNDISTURBED, Bench, say
from tests.faults.orchestrator import run_orchestrator
from tests.faults.table import Row, table
from tests.faults.trials import Trial
from tests.small_disk import grow, may_mount, small_disk


def run_trial(bench: Bench, trial: Trial, number: int) -> None:
    """All faults of a trial, and an undisturbed attempt at the end where the last one did not end well."""
    if trial.full_at and not may_mount():
        say(f"{trial.stage}: no file system can be mounted here; the full disk is left out")
        return
    expected, asked = bench.expected[trial.stage].result(), 0
    with ExitStack() as stack:
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
            if fault.needs == "cgroup" and not memory.may_group():
                say(f"{trial.stage}: no control group can be made here; {fault.name} is left out")
                continue
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
            stack.enter_context(small_disk(Path(self.out), int(size * self.trial.full_at)))

    def attempt(self, fault: Fault) -> End:
        """One attempt; its row is judged at once, and again when the outputs are whole."""
        self.began = True
        bench, trial = self.bench, self.trial
        asked_before = len(self.server.asked()) if self.server else 0
        paid = len(set(world.answered(Path(self.out) / "instruct_data.json.ledger"))) if self.server else 0
        if trial.full_at and not fault.full:
            grow(Path(self.out), 1 << 30)
        began = time.monotonic()
        end = self._run(fault)
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
        bench.rows.append((self.number, row))
        if end.code == 0:
            with bench.store if trial.place == "store" else nullcontext():
                self.compare()
        say(row.line())
        if row.broken or (end.code > 0 and ("store" in fault.name or not fired)):
            print(end.said[-2500:], flush=True)
        return end

    def _run(self, fault: Fault) -> End:
        bench = self.bench
        command = _command(bench, self.trial, self.out, self.server)
        out, scratch, environment = Path(self.out), bench.scratch(), bench.environment()
        if self.trial.place == "disk":
            return attempts.run(command, fault, out, scratch, environment)
        with bench.store:
            bench.faults.rules = list(fault.rules)
            try:
                return attempts.run(
                    command, fault, out, scratch, environment, lambda kill: setattr(bench.faults, "kill", kill)
                )
            finally:
                bench.faults.rules, bench.faults.away_until = [], 0.0

    def compare(self) -> None:
        """The outputs are whole: are they what they must be?"""
        if self.trial.place == "store":
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
    if fault.name.startswith(("memory limit (refused)", "kill of one rank")):
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


def run_all(
    chosen: Sequence[Trial], keep: Path, folder: Path, *, orchestrators: Sequence[str], jobs: int = 2
) -> list[Row]:
    """Every trial; the rows of the table. World and undisturbed run lie in `keep`, the rest in `folder`.

    `jobs` of them run beside each other; a trial begins when the undisturbed chain has made what it is compared to.
    """
    with ExitStack() as stack:
        bench = Bench(folder, world.draw(keep))
        last = max((world.STAGES.index(trial.stage) for trial in chosen), default=0)
        bench.expected = {stage: Future() for stage in world.STAGES[: last + 1]}
        if any(trial.place == "store" for trial in chosen):
            bench.open_store(stack)
        pool = stack.enter_context(ThreadPoolExecutor(len(chosen) + len(orchestrators) + 1))
        busy = threading.Semaphore(jobs)  # the chain counts as one; a trial that waits for it does not
        turn = threading.Lock()
        running = [pool.submit(_within, busy, bench.chain, world.STAGES[: last + 1])]
        for number, package in enumerate(orchestrators, len(chosen)):
            running.append(pool.submit(_within, busy, _orchestrator, bench, package, number))
        for number, trial in enumerate(chosen):
            running.append(pool.submit(_trial, busy, turn, bench, trial, number))
        for each in as_completed(running):
            each.result()
        return [row for _, row in sorted(bench.rows, key=lambda pair: pair[0])]


def _within(busy: threading.Semaphore, work: Callable[..., None], *arguments: object) -> None:
    with busy:
        work(*arguments)


def _trial(busy: threading.Semaphore, turn: threading.Lock, bench: Bench, trial: Trial, number: int) -> None:
    bench.expected[trial.stage].result()
    with turn if trial.place == "store" else nullcontext():  # they share a proxy
        _within(busy, run_trial, bench, trial, number)


def _orchestrator(bench: Bench, package: str, number: int) -> None:
    bench.rows += [(number, row) for row in run_orchestrator(package, bench.local, bench.folder, ENVIRONMENT, say)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="20 faults, as CI does")
    parser.add_argument("--stage", action="append", choices=world.STAGES, help="only trials of this stage; repeat")
    parser.add_argument("--place", choices=("disk", "store"), help="only trials that write there")
    parser.add_argument("--fault", default="", help="only faults whose name holds this")
    parser.add_argument("--orchestrator", action="store_true", help="only kills of the orchestrator")
    parser.add_argument("--seed", type=int, default=0, help="of the times at which is killed (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="trials beside each other (default %(default)s)")
    parser.add_argument("--folder", type=Path, help="work there, keep the undisturbed run and use it again")
    options = parser.parse_args(arguments)
    chosen: list[Any] = trials.short() if options.short else trials.long(options.seed)
    chosen = [each for each in chosen if not options.stage or each.stage in options.stage]
    chosen = [each for each in chosen if not options.place or each.place == options.place]
    chosen = [replace(each, faults=[one for one in each.faults if options.fault in one.name]) for each in chosen]
    chosen = [each for each in chosen if each.faults]
    chosen = [] if options.orchestrator else chosen
    orchestrators = (
        [] if options.stage or options.place or options.fault else ["only-expand"] if options.short else ["full"]
    )
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="llava-faults-") as folder:
        keep = options.folder or Path(folder)
        rows = run_all(chosen, keep, Path(folder), orchestrators=orchestrators, jobs=options.jobs)
    print(f"\n{table(rows)}\n{time.monotonic() - began:,.0f} s")
    return 1 if any(row.broken for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
