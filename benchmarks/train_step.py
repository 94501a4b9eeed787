"""One optimiser step, ours against trl's SFTTrainer: same model, same rows, same machine, same threads.

    python -m benchmarks.train_step --peer-python /path/to/env/bin/python

The peer runs in its own environment: `uv venv ENV && uv pip install --python ENV/bin/python -c constraints.txt trl
torch transformers pillow`. Without `--peer-python` only our side is measured. Model: the demo's CLIP and Llama
(`demo/base`) joined, once with their own vocabulary and once with LLaVA's 32,064 rows of embedding and head, whose
logits are a large part of a small model's work; rows: conversations over generated scenes, one image each, 1 to 8
exchanges. Both sides train projector and language model in fp32 with AdamW on `--rows-per-step` rows a step; times are
from the end of one step to the end of the next, data loading included; the first steps are left out. Tokens are real
ones, padding does not count. The sides take turns for `--rounds` rounds and the best of each counts, so run it on a
quiet machine. Figures go to benchmarks/results/train_step.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WARM_UP = 3
BASE = Path(__file__).resolve().parents[1] / "demo" / "base"
LLAVA_VOCABULARY = 32_064
PEER = "trl SFTTrainer"
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


def write_language_model(folder: Path, vocabulary: int) -> Path:
    """The demo's Llama with `vocabulary` rows of embedding and head; 0: as it is."""
    if not vocabulary:
        return BASE / "llama"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = folder / f"llama-{vocabulary}"
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(BASE / "llama", dtype=torch.float32)
    model.resize_token_embeddings(vocabulary, mean_resizing=False)
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(BASE / "llama").save_pretrained(path)
    return path


def ours(folder: Path, rows: Path, language_model: Path, options: argparse.Namespace, packing: bool) -> dict[str, Any]:
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
    overrides = {f"finetune.{name}": value for name, value in fields.items()}
    models = {"model.vision_tower": str(BASE / "clip"), "model.language_model": str(language_model)}
    job = Job(
        stage="finetune",
        recipe=load_recipe("tiny", overrides | models),
        data_uri=str(rows),
        images_uri=str(rows.parent),
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


def peer(folder: Path, rows: Path, options: argparse.Namespace) -> dict[str, Any]:
    """SFTTrainer in its own environment, on the model our padded run was built from."""
    request = {
        "model": str(folder / "padded" / "model"),
        "rows": str(rows),
        "images": str(rows.parent),
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
    measured: dict[str, Any] = json.loads(done.stdout.decode().strip().splitlines()[-1])
    return measured


def measure(scratch: Path, rows: Path, vocabulary: int, options: argparse.Namespace) -> dict[str, Any]:
    """The best round of each side on one model, and how many times the peer's tokens a second each has."""
    found: dict[str, list[dict[str, Any]]] = {}
    language_model = write_language_model(scratch, vocabulary)
    for number in range(options.rounds):
        folder = scratch / f"{vocabulary}-{number}"
        found.setdefault("ours, padded", []).append(ours(folder, rows, language_model, options, False))
        found.setdefault("ours, packed", []).append(ours(folder, rows, language_model, options, True))
        if options.peer_python:
            found.setdefault(PEER, []).append(peer(folder, rows, options))
    best = {side: max(runs, key=lambda run: run["tokens_per_second"]) for side, runs in found.items()}
    if PEER in best:
        for side in best.values():
            side["times_the_peer"] = round(side["tokens_per_second"] / best[PEER]["tokens_per_second"], 2)
    return best


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, write the results file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--peer-python", default="", help="Python of an environment with trl")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rows-per-step", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--vocabulary",
        type=int,
        nargs="+",
        default=[0, LLAVA_VOCABULARY],
        help="rows of embedding and head, one model each; 0: the demo's own",
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/train_step.json"))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="llava-bench-") as temporary:
        scratch = Path(temporary)
        rows = write_rows(scratch / "world", max(64, options.rows_per_step * 8))
        results = {
            f"vocabulary {size or 'as in the demo'}": measure(scratch, rows, size, options)
            for size in options.vocabulary
        }
    settings = {name: getattr(options, name) for name in ("steps", "rows_per_step", "threads", "rounds")}
    document = {
        "machine": _machine(),
        "results": {model: {"settings": settings, **sides} for model, sides in results.items()},
    }
    for model, sides in results.items():
        print(model)
        for side, figures in sides.items():
            times = f"{figures['times_the_peer']:>8.2f}x" if PEER in sides else ""
            print(
                f"  {side:<16}{figures['tokens_per_second']:>10,.0f} tokens/s"
                f"{figures['samples_per_second']:>9.1f} samples/s{figures['step_seconds']:>9.3f} s a step{times}"
            )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=2) + "\n")


def _machine() -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "deepspeed")}
    return {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version(), **versions}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    main()
