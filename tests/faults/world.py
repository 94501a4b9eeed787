"""The small world of the fault tests: its data, each stage's command, and what of a stage's output must be equal."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.world import write_world
from llava import storage

STAGES = ("expand", "pretrain", "finetune", "evaluate", "export")
IMAGES, HELD_OUT, STEPS, SAVE_EVERY = 96, 16, 36, 4
_SECTION = {
    "max_steps": STEPS, "save_every_steps": SAVE_EVERY, "global_batch_size": 8, "micro_batch_size": 4,
    "log_every_steps": 1,
}  # fmt: skip
OVERRIDES = json.dumps({f"{stage}.{name}": value for stage in STAGES[1:3] for name, value in _SECTION.items()})
RANKS = {"pretrain": 2, "finetune": 1}
PRICES = "models: {teacher: {input: 1000, output: 10000}}\n"
# Beside the artifacts: what tells of the run and not of its result.
_OWN_STORY = (
    "manifest.json",
    "metrics.json",
    "report.html",
    "summary.json",
    ".card.md",
    ".about.json",
    "metrics",
    "llava-outputs.json",
    "executor_output.json",
)
_FLEETING = ("seconds", "throughput", "per_second", "memory", "resumed_from", "restarts", "hours", "wait")


@dataclass(frozen=True)
class World:
    """Where the data lies, and where the undisturbed chain put its results: a folder, or the same in a store."""

    root: str
    results: str

    def command(self, stage: str, out: str, teacher: str = "", prices: str = "") -> list[str]:
        """The command line of a stage that writes below `out`."""
        made = {name: storage.join(self.results, name) for name in STAGES}
        data = storage.join(made["expand"], "pretrain_data.json" if stage == "pretrain" else "instruct_data.json")
        train = ["--recipe", "tiny", "--overrides", OVERRIDES, "--threads-per-process", "1", "--data", data]
        train += ["--images-uri", self.root, "--processes", str(RANKS.get(stage, 1))]
        own = {
            "expand": ["--annotations-uri", storage.join(self.root, "annotations"), "--image-prefix", "train2017"],
            "pretrain": train,
            "finetune": [*train, "--projector", storage.join(made["pretrain"], "projector")],
            "evaluate": [
                "--model", storage.join(made["finetune"], "model"),
                "--projector", storage.join(made["pretrain"], "projector"),
                "--questions-uri", storage.join(self.root, "annotations/questions_val.jsonl"),
                "--images-uri", self.root, "--batch-size", "4",
            ],
            "export": ["--model", storage.join(made["finetune"], "model"), "--precisions", "fp32"],
        }[stage]  # fmt: skip
        if teacher:
            own += ["--teacher", "openai", "--teacher-endpoint", teacher, "--teacher-model", "teacher"]
            own += ["--prices", prices, "--concurrency", "8", "--request-timeout-s", "3"]
        return [sys.executable, "-m", "llava", stage, *own, "--out", out]


def draw(folder: Path) -> World:
    """Draw the world below `folder`; results go beside it."""
    if not (folder / "prices.yaml").exists():
        write_world(folder / "world", train=IMAGES, held_out=HELD_OUT, seed=3)
    (folder / "prices.yaml").write_text(PRICES)
    return World(str(folder / "world"), str(folder / "undisturbed"))


def content(out: str) -> dict[str, str]:
    """What a stage made, by name: hashes of the bytes of every artifact, and the numbers it reported.

    Left out is what tells the story of the run (times, attempts), which a disturbed run may tell differently.
    """
    found = files_of(out)
    for name, value in storage.read_json(storage.join(out, "metrics.json")).items():
        if not any(word in name for word in _FLEETING):
            found[f"metric {name}"] = repr(value)
    return found


def files_of(out: str) -> dict[str, str]:
    """Hashes of the artifacts below a stage's outputs, by name."""
    found: dict[str, str] = {}
    for item in storage.list_files(out):
        story = item.path.endswith(_OWN_STORY) or item.path.endswith(".provenance.jsonl")
        if not story and not item.path.startswith("checkpoints/") and ".ledger/" not in item.path:
            data = storage.read_bytes(storage.join(out, item.path))
            found[item.path] = hashlib.sha256(data).hexdigest()[:16]
    return found


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """What is missing, additional or different."""
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def answered(ledger: Path) -> list[str]:
    """Ids of the finished entries of a local ledger, read with nothing of the project."""
    ids = []
    for path in sorted(ledger.glob("segment-*.jsonl")):
        for line in path.read_bytes().split(b"\n")[:-1]:  # what stands behind the last line end is torn
            row: dict[str, Any] = json.loads(line)
            if row.get("status") in ("answered", "dropped"):
                ids.append(str(row["id"]))
    return ids
