"""One optimiser step, ours against trl's SFTTrainer: same model, same rows, same machine, same threads.

    python -m benchmarks.train_step --peer-python /path/to/env/bin/python

The peer runs in its own environment: `uv venv ENV && uv pip install --python ENV/bin/python -c constraints.txt trl
torch transformers pillow`. Without `--peer-python` only our side is measured. Model: the demo's CLIP and Llama
(`demo/base`) joined; rows: conversations over generated scenes, one image each, 1 to 8 exchanges. Both sides train
projector and language model in fp32 with AdamW on `--rows-per-step` rows a step; times are from the end of one step to
the end of the next, data loading included; the first steps are left out. Tokens are real ones, padding does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WARM_UP = 3
QUESTION = "Describe the image in one sentence."


def write_rows(folder: Path, count: int) -> Path:
    """LLaVA rows of uneven length over `count` generated scenes."""
    from demo.world import write_world

    write_world(folder, train=count, held_out=4, seed=1)
    captions: dict[int, list[str]] = {}
    for row in json.loads((folder / "annotations" / "captions_train2017.json").read_text())["annotations"]:
        captions.setdefault(row["image_id"], []).append(row["caption"])
    rows = []
    for index, (image_id, texts) in enumerate(sorted(captions.items())):
        turns: list[dict[str, str]] = []
        for exchange in range(1 + index * 5 % 8):
            question = f"<image>\n{QUESTION}" if exchange == 0 else QUESTION
            answer = texts[exchange % len(texts)]
            turns += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        rows.append({"id": str(image_id), "image": f"train2017/{image_id:012d}.jpg", "conversations": turns})
    path = folder / "rows.json"
    path.write_text(json.dumps(rows))
    return path


def ours(folder: Path, rows: Path, options: argparse.Namespace, packing: bool) -> dict[str, float]:
    """Our loop, through the same door as the stage."""
    from llava.config import load_recipe
    from llava.training import launch
    from llava.training.job import Job

    fields: dict[str, Any] = {
        "max_steps": options.steps,
        "global_batch_size": options.rows_per_step,
        "micro_batch_size": options.rows_per_step,
        "packing": packing,
        "pack_tokens": 4096,
        "max_length": 1024,
        "group_by_modality_length": False,
        "max_grad_norm": None,
        "save_every_steps": options.steps,
        "log_every_steps": 1,
    }
    out = folder / ("packed" if packing else "padded")
    job = Job(
        stage="finetune",
        recipe=load_recipe("tiny", {f"finetune.{name}": value for name, value in fields.items()}),
        data_uri=str(rows),
        images_uri=str(folder),
        output_uri=str(out / "model"),
        checkpoints_uri=str(out / "checkpoints"),
        result_uri=str(out / "result.json"),
        failure_uri=str(out / "failures"),
        threads_per_process=options.threads,
    )
    result = launch.launch(job, 1)
    timed = result.history[WARM_UP:]
    seconds = sum(record.seconds or 0.0 for record in timed)
    return {
        "tokens_per_second": sum(record.tokens for record in timed) / seconds,
        "samples_per_second": len(timed) * options.rows_per_step / seconds,
        "step_seconds": seconds / len(timed),
        "padding_share": result.numbers["padding_share"],
    }


def peer(folder: Path, rows: Path, options: argparse.Namespace) -> dict[str, float]:
    """SFTTrainer in its own environment, on the model our padded run was built from."""
    request = {
        "model": str(folder / "padded" / "model"),
        "rows": str(rows),
        "images": str(folder),
        "steps": options.steps,
        "batch": options.rows_per_step,
        "threads": options.threads,
        "warm_up": WARM_UP,
        "out": str(folder / "peer"),
    }
    script = Path(__file__).with_name("train_step_trl.py")
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [options.peer_python, str(script), json.dumps(request)], env=environment, stdout=subprocess.PIPE, check=True
    )
    measured: dict[str, float] = json.loads(done.stdout.decode().strip().splitlines()[-1])
    return measured


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_step", description=__doc__)
    parser.add_argument("--peer-python", default="", help="Python of an environment with trl")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rows-per-step", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="alternate the sides this often; the best round counts")
    options = parser.parse_args(arguments)
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="llava-bench-") as scratch:
        folder = Path(scratch)
        rows = write_rows(folder, max(64, options.rows_per_step * 8))
        for number in range(options.rounds):
            out = folder if number == 0 else folder / f"round-{number}"
            if number:
                out.mkdir()
                for name in ("train2017", "rows.json"):
                    (out / name).symlink_to(folder / name)
            found.setdefault("ours, padded", []).append(
                ours(out, out / "rows.json" if number else rows, options, False)
            )
            found.setdefault("ours, packed", []).append(ours(out, out / "rows.json" if number else rows, options, True))
            if options.peer_python:
                found.setdefault("trl SFTTrainer", []).append(peer(out, out / "rows.json" if number else rows, options))
    best = {side: max(runs, key=lambda run: run["tokens_per_second"]) for side, runs in found.items()}
    machine = {"machine": platform.machine(), "processor": _processor(), "python": sys.version.split()[0]}
    document = {"options": vars(options) | {"peer_python": bool(options.peer_python)}, **machine, "results": best}
    print(json.dumps(document, indent=2))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    main()
