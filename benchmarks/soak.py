"""Does a long run stay as it was? `python -m benchmarks.soak --steps 15000`: memory and speed of a training, all along.

A run of small steps of the real loop (rank, loader, history, checkpoints; the demo's models) in place of a day of large
ones: LLaVA-1.5's first stage takes about six seconds a step on eight A100, so 15,000 steps are such a day. Every
`--every` steps the rank's memory and the size of its newest checkpoint's manifest, which holds the history, are noted;
the first tenth is warm-up. Results go to benchmarks/results/soak.json with machine and versions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from demo.run import BASE
from demo.world import write_world

RESULT = Path(__file__).parent / "results" / "soak.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=15_000)
    parser.add_argument("--every", type=int, default=250, help="steps between two looks, and between two checkpoints")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llava-soak-") as folder:
        looks = soak(Path(folder), options.steps, options.every)
    told = summary(looks)
    machine = {
        "cores": os.cpu_count(), "load": os.getloadavg()[0], "python": platform.python_version(),
        "torch": version("torch"), "deepspeed": version("deepspeed"),
    }  # fmt: skip
    options.out.write_text(json.dumps({"machine": machine, **told, "looks": looks}, indent=1) + "\n")
    print(json.dumps(told, indent=2))


def soak(folder: Path, steps: int, every: int) -> list[dict[str, float]]:
    """Train; what was seen at each checkpoint."""
    write_world(folder / "world", train=96, held_out=1, seed=3)
    captions = json.loads((folder / "world/annotations/captions_train2017.json").read_text())["annotations"]
    rows = [
        {
            "id": str(each["id"]),
            "image": f"train2017/{each['image_id']:012d}.jpg",
            "conversations": [
                {"from": "human", "value": "<image>\nDescribe the image."},
                {"from": "gpt", "value": each["caption"]},
            ],
        }
        for each in captions[:96]
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    own = {
        "max_steps": steps, "save_every_steps": every, "global_batch_size": 1, "micro_batch_size": 1,
        "log_every_steps": 50,
    }  # fmt: skip
    command = [sys.executable, "-m", "llava", "pretrain", "--recipe", "tiny", "--data", str(folder / "rows.json")]
    command += ["--images-uri", str(folder / "world"), "--vision-tower", str(BASE / "clip"), "--processes", "1"]
    command += ["--language-model", str(BASE / "llama"), "--threads-per-process", "1", "--out", str(folder / "out")]
    command += ["--overrides", json.dumps({f"pretrain.{name}": value for name, value in own.items()})]
    looks: list[dict[str, float]] = []
    began = time.monotonic()
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        while process.poll() is None:
            for manifest in sorted((folder / "out/checkpoints").glob("step-*/manifest.json")):
                step = int(manifest.parent.name[5:])
                if not looks or step > looks[-1]["step"]:
                    looks.append(look(psutil.Process(process.pid), manifest, step, time.monotonic() - began))
            time.sleep(0.2)
    if process.returncode:
        raise SystemExit(process.returncode)
    return [each for each in looks if each["rss_mb"]]


def look(stage: psutil.Process, manifest: Path, step: int, seconds: float) -> dict[str, float]:
    """Memory of the rank, its threads and open files, and the manifest's size."""
    found: dict[str, float] = {"step": step, "seconds": round(seconds, 1), "rss_mb": 0.0}
    try:
        found["manifest_kb"] = manifest.stat().st_size // 1024
        for child in stage.children(recursive=True):
            if "llava.training.worker" in child.cmdline():
                found |= {"rss_mb": round(child.memory_info().rss / 1e6, 1), "threads": child.num_threads()}
                found["files"] = child.num_fds()
    except (psutil.Error, OSError):
        pass  # it has just ended, or the checkpoint has just been replaced
    return found


def summary(looks: list[dict[str, float]]) -> dict[str, Any]:
    """The figures at a tenth, at half and at the end, and the speed of both halves."""
    tenth, half = looks[len(looks) // 10], looks[len(looks) // 2]
    last = looks[-1]
    return {
        "steps": last["step"],
        "rss_mb": {"at a tenth": tenth["rss_mb"], "at half": half["rss_mb"], "at the end": last["rss_mb"]},
        "manifest_kb": {"at a tenth": tenth.get("manifest_kb"), "at half": half.get("manifest_kb"),
                        "at the end": last.get("manifest_kb")},
        "open_files": {"at a tenth": tenth.get("files"), "at the end": last.get("files")},
        "steps_per_second": {
            "first half": (half["step"] - tenth["step"]) / (half["seconds"] - tenth["seconds"]),
            "second half": (last["step"] - half["step"]) / (last["seconds"] - half["seconds"]),
        },
    }  # fmt: skip


if __name__ == "__main__":
    main()
