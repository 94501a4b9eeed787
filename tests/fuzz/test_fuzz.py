"""A bounded number of cases for every reader of outside data; `make fuzz` runs many more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import guard, mutations
from tests.fuzz.targets import TARGETS, run

CASES = 120


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_no_bytes_make_a_reader_fail(name: str) -> None:
    for data in mutations.cases(name, CASES):
        with guard.case(60) as folder:
            guard._folder.clear()  # the audit hook belongs to the fuzzer's own processes
            run(name, data, folder)


def test_cases_are_the_same_every_time() -> None:
    assert list(mutations.cases("json_text", 50)) == list(mutations.cases("json_text", 50))
    assert len(set(mutations.cases("json_text", 200))) > 100


GUARDED = """
import sys
from pathlib import Path
from tests.fuzz import guard
guard.install()
try:
    with guard.case(2) as folder:
        {action}
except guard.Violation as violation:
    print("VIOLATION", violation)
except MemoryError:
    print("VIOLATION memory")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "seen"),
    [
        ("Path('/tmp/llava-fuzz-outside').write_text('x')", "wrote /tmp/llava-fuzz-outside"),
        ("import os; os.system('true')", "os.system"),
        ("import time; time.sleep(9)", "still running"),
        ("bytearray(8 << 30)", "memory"),
        ("(folder / 'inside').write_text('x')", ""),
    ],
)
def test_the_guard_sees_what_no_case_may_do(action: str, seen: str) -> None:
    """The fuzzer can fail: each violation is planted and must be seen."""
    code = GUARDED.format(action=action)
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root)
    assert ("VIOLATION" in done.stdout) == bool(seen) and seen in done.stdout, done.stdout + done.stderr
