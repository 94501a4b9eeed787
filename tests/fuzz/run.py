"""`make fuzz`: many cases for every target, a process each, and a table.

    python -m tests.fuzz.run --cases 5000            # mutations of the corpus
    python -m tests.fuzz.run --seconds 60            # coverage-guided, where atheris is installed
    python -m tests.fuzz.run --target image --seconds 600

A case that crashes, hangs, takes more than its memory or writes outside its folder is kept under `--findings` and
named; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import subprocess
import sys
import time
import traceback
from pathlib import Path

from tests.fuzz import guard, mutations
from tests.fuzz.targets import TARGETS, run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="only these; default all")
    parser.add_argument("--cases", type=int, default=3000, help="mutated cases a target (default %(default)s)")
    parser.add_argument("--seconds", type=int, default=0, help="coverage-guided instead, so long a target (atheris)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument("--findings", type=Path, default=Path("runs/fuzz"), help="where failing cases are kept")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process:
        return one(options.target[0], options)
    if options.seconds and importlib.util.find_spec("atheris") is None:
        parser.error("--seconds: atheris is not installed; pip install atheris, or use --cases")
    print(f"{'target':22} {'cases':>9} {'seconds':>8}  outcome", flush=True)
    failed = total = 0
    for name in options.target or sorted(TARGETS):
        start = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.run",
            "--in-process",
            "--target",
            name,
            "--cases",
            str(options.cases),
        ]
        command += ["--seconds", str(options.seconds), "--seed", str(options.seed), "--findings", str(options.findings)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        cases = _cases_of(done.stdout + done.stderr, options)
        total += cases
        bad = done.returncode != 0
        failed += bad
        last = (done.stdout + done.stderr).strip().splitlines()
        outcome = (
            "ok"
            if not bad
            else next((line for line in last if line.startswith("FOUND")), last[-1] if last else "killed")
        )
        print(f"{name:22} {cases:>9,} {time.monotonic() - start:>8.1f}  {outcome}", flush=True)
    print(f"{total:,} cases, {failed} targets with findings", flush=True)
    return 1 if failed else 0


def one(name: str, options: argparse.Namespace) -> int:
    """All cases of one target, in this process."""
    for data in mutations.cases(name, 3):  # imports and caches are made before anything is watched
        try:
            with guard.case(120) as folder:
                guard._folder.clear()
                run(name, data, folder)
        except Exception:
            return _found(name, data, options.findings)
    guard.install()
    if options.seconds:
        return _guided(name, options)
    count = 0
    for data in mutations.cases(name, options.cases, options.seed):
        count += 1
        try:
            with guard.case() as folder:
                run(name, data, folder)
        except BaseException:
            return _found(name, data, options.findings)
    print(f"CASES {count}", flush=True)
    return 0


def _guided(name: str, options: argparse.Namespace) -> int:
    import atheris

    def each(data: bytes) -> None:
        try:
            with guard.case() as folder:
                run(name, data, folder)
        except BaseException:
            _found(name, data, options.findings)
            raise

    atheris.instrument_all()
    work = options.findings / "corpus" / name
    work.mkdir(parents=True, exist_ok=True)
    arguments = [f"-max_total_time={options.seconds}", "-print_final_stats=1", "-max_len=20000", str(work)]
    if (mutations.CORPUS / name).is_dir():
        arguments.append(str(mutations.CORPUS / name))
    atheris.Setup([sys.argv[0], *arguments], each)
    atheris.Fuzz()
    return 0


def _found(name: str, data: bytes, findings: Path) -> int:
    findings.mkdir(parents=True, exist_ok=True)
    path = findings / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    traceback.print_exc()
    kind, value, _ = sys.exc_info()
    print(f"FOUND {kind.__name__ if kind else ''}: {str(value)[:160]} ({path})", flush=True)
    return 1


def _cases_of(text: str, options: argparse.Namespace) -> int:
    for line in text.splitlines():
        if line.startswith("CASES "):
            return int(line.split()[1])
        if line.startswith("stat::number_of_executed_units:"):
            return int(line.split()[-1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
