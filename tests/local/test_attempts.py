"""Notes of unfinished tasks: which run's places the next attempt gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from llava.local.attempts import Attempt, Attempts

TASK = ("learn", "image:1", ["python", "-m", "stage"], {"parameterValues": {"rate": 0.5}})


def begin(folder: Path, run: str, *, inputs: object = TASK[3]) -> Attempt:
    return Attempts(folder).begin(*TASK[:3], inputs, run)


def test_what_did_not_end_well_goes_on_in_its_first_places(tmp_path: Path) -> None:
    first = begin(tmp_path, "run-1")
    assert (first.run, first.resumed) == ("run-1", False)
    first.end(well=False)
    second = begin(tmp_path, "run-2")
    assert (second.run, second.resumed) == ("run-1", True)
    second.end(well=True)
    third = begin(tmp_path, "run-3")
    assert (third.run, third.resumed) == ("run-3", False)


def test_another_input_is_another_task(tmp_path: Path) -> None:
    begin(tmp_path, "run-1").end(well=False)
    assert begin(tmp_path, "run-2", inputs={"parameterValues": {"rate": 0.6}}).run == "run-2"


def test_two_at_once_do_not_share_places(tmp_path: Path) -> None:
    first = begin(tmp_path, "run-1")
    assert begin(tmp_path, "run-2").run == "run-2"
    first.end(well=False)


def test_a_killed_process_leaves_its_note_unlocked(tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from llava.local.attempts import Attempts\n"
        f"attempt = Attempts(Path({str(tmp_path)!r})).begin(*{TASK!r}, 'run-1')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == -9
    again = begin(tmp_path, "run-2")
    assert (again.run, again.resumed) == ("run-1", True)
