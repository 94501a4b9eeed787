"""Time, memory and size of a report that shows every sample: `python -m benchmarks.report`.

A page as an evaluation writes it (four contenders, two profiles, a question, an expected answer and 50 thumbnails) for
2,500 to 20,000 samples, each count in a process of its own: seconds and peak memory to build and write it, bytes of the
page. What Chromium makes of 20,000 is `tests/test_explorer.py`'s.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.data_path import machine
from llava.report import Answer, Report, Sample, thumbnail

RESULT = Path(__file__).parent / "results" / "report.json"
COUNTS = (2_500, 5_000, 10_000, 20_000)
CONTENDERS, PROFILES = ("finetuned", "stage1", "base", "blank"), ("llava-1.5", "robust")
IMAGES = 50


def samples(count: int) -> Iterator[Sample]:
    """Made one by one, as an evaluation hands them over."""
    for k in range(count):
        answers = {
            name: Answer(
                f"It is the {k * (place + 3) % 97}th of them, in the middle of the image.",
                dict.fromkeys(PROFILES, float(k % 3 != place)),
            )
            for place, name in enumerate(CONTENDERS)
        }
        tags = {"benchmark": f"benchmark {k % 5}", "kind": f"kind {k % 11}"}
        question = f"What is the colour of thing {k}, left of the others? Answer with a single word or phrase."
        yield Sample(f"q{k}", question, "red", f"{k % IMAGES}.jpg", tags, answers)


def one(count: int) -> dict[str, Any]:
    """Build and write one page; what it took."""
    thumbnails = {f"{k}.jpg": thumbnail(Image.effect_noise((640, 480), k + 1)) for k in range(IMAGES)}
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        before, began = _peak_mb(), time.perf_counter()
        report = Report("A report of many samples")
        report.explorer("Every question", samples(count), CONTENDERS, PROFILES, thumbnails).write(str(page))
        seconds = time.perf_counter() - began
        assert page.read_text(encoding="utf-8").count("of thing ") == count
        size = page.stat().st_size
    return {
        "samples": count, "seconds": round(seconds, 2), "page_mb": round(size / 1e6, 2),
        "peak_mb_before": round(before), "peak_mb": round(_peak_mb()),
    }  # fmt: skip


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one)))
        return
    found = []
    for count in COUNTS:
        command = [sys.executable, "-m", "benchmarks.report", "--one", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.strip().rpartition("\n")[2]))
        print(found[-1], flush=True)
    told = {"machine": machine(), "load": os.getloadavg()[0], "pages": found}
    options.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
