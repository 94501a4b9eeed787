"""How long a wrong call takes to be refused, each as a process of its own: `python -m benchmarks.wrong_calls`.

The calls are those of `tests/cli/test_wrong_calls.py`, in the folder that test makes. Wall time is what a person waits;
CPU time (user and system) is what it costs, and hardly depends on what else the machine does. The first round warms the
page cache and is not counted; of the others the quickest counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.cli.test_wrong_calls import LLAVA, PIPELINE, PROJECT, write_folder


def main() -> None:
    """Print a line a call, slowest first, and a summary; with `--json`, write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    calls = [("llava", call) for call, _ in LLAVA] + [("pipeline", call) for call, _ in PIPELINE]
    with tempfile.TemporaryDirectory(prefix="wrong-calls-") as place:
        write_folder(Path(place))
        timed = [(*_quickest(module, call.split(), place, options.rounds), module, call) for module, call in calls]
    timed.sort(reverse=True)
    for wall, cpu, module, call in timed:
        print(f"{wall:6.2f} s wall {cpu:6.2f} s CPU  {module} {call}")
    walls, costs = [line[0] for line in timed], [line[1] for line in timed]
    summary = {
        "calls": len(timed),
        "wall_seconds": {"median": sorted(walls)[len(walls) // 2], "slowest": walls[0]},
        "cpu_seconds": {"median": sorted(costs)[len(costs) // 2], "slowest": max(costs)},
        "under_2_seconds_wall": sum(wall < 2 for wall in walls),
        "under_2_seconds_cpu": sum(cost < 2 for cost in costs),
        "load_average": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    print(json.dumps(summary, indent=2))
    if options.json:
        Path(options.json).write_text(json.dumps(summary, indent=2) + "\n")


def _quickest(module: str, arguments: list[str], place: str, rounds: int) -> tuple[float, float]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OPENAI_", "KF_"))}
    environment |= {"PYTHONPATH": str(PROJECT), "COLUMNS": "200"}
    found = []
    for _ in range(rounds + 1):
        before, began = _cpu_of_children(), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments], cwd=place, env=environment, capture_output=True, check=False
        )
        wall = time.perf_counter() - began
        assert done.returncode == 2, (module, arguments, done.stderr)
        found.append((wall, _cpu_of_children() - before))
    return min(found[1:])


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
