"""The orchestrator of a local run, killed: its stages die with it, and the same command resumes in the same places."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults import attempts, world
from tests.faults.attempts import Fault, after
from tests.faults.table import Row

_KILLS = {"only-expand": (3.0, 4.0), "full": (5.0, 18.0, 25.0, 20.0, 30.0)}


def run_orchestrator(
    package: str, data: world.World, folder: Path, environment: dict[str, str], say: Callable[[str], None]
) -> list[Row]:
    """Kill it at several times, let it end, compare with a run of the same package that nobody disturbed."""
    undisturbed, out = folder / f"{package}-undisturbed", folder / f"{package}-killed"
    scratch = folder / "orchestrator"
    end = attempts.run(_command(package, data, undisturbed), Fault("none"), undisturbed, scratch / "0", environment)
    if end.code:
        raise SystemExit(f"the undisturbed {package} failed:\n{end.said[-3000:]}")
    rows = []
    for number, seconds in enumerate(_KILLS[package], 1):
        fault = Fault("kill of the orchestrator", watch=after(seconds, attempts.kill_head))
        began = time.monotonic()
        end = attempts.run(_command(package, data, out), fault, out, scratch / str(number), environment)
        rows.append(Row(package, "disk", fault.name, end.fired, end.code, time.monotonic() - began, end.broken))
        say(rows[-1].line())
    end = attempts.run(_command(package, data, out), Fault("none"), out, scratch / "last", environment)
    last = Row(package, "disk", "none", 0, end.code, 0.0, end.broken)
    if end.code:
        last.broken.append(f"could not be resumed: exit status {end.code}")
    elif wrong := world.differences(_made(undisturbed), _made(out)):
        last.broken.append(f"other than undisturbed: {', '.join(wrong[:4])}")
    for row in rows:
        row.compared = not end.code
    say(last.line())
    if last.broken:
        say(end.said[-2500:])
    return [*rows, last]


def _command(package: str, data: world.World, out: Path) -> list[str]:
    values = {
        "expand_annotations_uri": f"{data.root}/annotations", "expand_image_prefix": "train2017",
    }  # fmt: skip
    if package == "full":
        values |= {
            "recipe": "tiny",
            "processes": "1",
            "threads_per_process": "1", "images_uri": data.root, "pretrain_overrides": world.OVERRIDES,
            "finetune_overrides": world.OVERRIDES, "evaluate_images_uri": data.root,
            "evaluate_questions_uri": f"{data.root}/annotations/questions_val.jsonl",
        }  # fmt: skip
    command = [sys.executable, "pipeline.py", "run", "--package", package, "--root", str(out), "--no-cache"]
    for name, value in values.items():
        command += ["-p", f"{name}={value}"]
    return command


def _made(root: Path) -> dict[str, str]:
    """What the stages of the run left, by stage and name, wherever in the run's folders it lies."""
    found: dict[str, str] = {}
    for record in sorted(root.rglob("llava-outputs.json")):
        told = json.loads(record.read_text())
        folder = record.parent
        for name, value in world.files_of(str(folder)).items():
            found[f"{told['stage']} {name}"] = value
    return found
