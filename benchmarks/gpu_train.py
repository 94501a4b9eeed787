"""Training at full size on one GPU: stage 1, stage 2 with adapters, stage 2 whole, beside trl's SFTTrainer.

    python -m benchmarks.gpu_train --out benchmarks/results/gpu_train.json

Base models have the published shapes of LLaVA-1.5 (CLIP ViT-L/14-336 and Vicuna 7B; `--size 13b`) and random weights,
drawn on the GPU: no download. Rows are as long as `llava plan` takes the published files' to be; images are 640 x 480
JPEGs, decoded on the host while training runs. Every case is a process of its own: the product's loop with loader,
meters and profiler (`benchmarks.gpu.case`), timed after compiling and warming up. Also: batched generation beside one
by one, and the ONNX export of the full-size tower. Runs with this project's pins and with torch 2.11 and transformers
5.17. `--size toy` tries everything in minutes without a GPU. The peer (`--peer`) needs trl and datasets beside torch. A
case that fails is written down with its error and the others run; each result is written as soon as it is there.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("torch", "transformers", "deepspeed", "peft", "trl", "liger-kernel", "triton", "onnxruntime")


def cases(size: str, memory: int) -> dict[str, dict[str, Any]]:
    """What is measured, by name; pack sizes for a GPU of `memory` bytes."""
    if size == "toy":
        small: dict[str, Any] = {"pack_tokens": 512, "pack_images": 8, "max_length": 512, "global_batch_size": 8}
        packs = {"stage 1": small, "stage 2 LoRA": small, "stage 2": small}
    else:
        large = memory > 100 * 2**30
        packs = {
            "stage 1": {"pack_tokens": 24576 if large else 12288, "pack_images": 48 if large else 24},
            "stage 2 LoRA": {"pack_tokens": 16384 if large else 7168, "pack_images": 24 if large else 12},
            "stage 2": {"pack_tokens": 8192, "pack_images": 16},
        }
        packs["stage 1"]["global_batch_size"] = 72 if large else 36
        packs["stage 2 LoRA"]["global_batch_size"] = 36 if large else 24
        packs["stage 2"]["global_batch_size"] = 32
    lora = {"lora": {"r": 128, "alpha": 256, "dropout": 0.05}, "zero_stage": 1}
    whole = {"zero_stage": 1, "activation_checkpoint_every_n_layers": 2}
    found: dict[str, dict[str, Any]] = {
        "stage 1": {"stage": "pretrain", "fields": packs["stage 1"]},
        "stage 1, compiled": {"stage": "pretrain", "fields": {**packs["stage 1"], "compile": True}},
        "stage 1, Liger": {"stage": "pretrain", "fields": {**packs["stage 1"], "kernels": "liger"}},
        "stage 2 LoRA": {"stage": "finetune", "fields": {**packs["stage 2 LoRA"], **lora}},
        "stage 2 LoRA, compiled": {"stage": "finetune", "fields": {**packs["stage 2 LoRA"], **lora, "compile": True}},
        "stage 2": {"stage": "finetune", "fields": {**packs["stage 2"], **whole}},
        "stage 2, compiled": {"stage": "finetune", "fields": {**packs["stage 2"], **whole, "compile": True}},
    }
    if size != "toy" and memory < 160 * 2**30:
        # 18 bytes a parameter: three quarters of the 7B's layers are what one such GPU holds.
        for name in ("stage 2", "stage 2, compiled"):
            found[name.replace("stage 2", "stage 2, 24 layers")] = {**found.pop(name), "layers": 24}
    for case in found.values():
        case["what"] = "train"
    tokens = 8 if size == "toy" else 64
    found["generation"] = {"what": "generate", "requests": 64, "new_tokens": tokens, "batches": [1, 16, 64]}
    found["ONNX export"] = {"what": "onnx"}
    found["trl, stage 1"] = {"what": "peer", "trained": "projector", "batch": 2 if size == "toy" else 16}
    found["trl, stage 1, checkpointing"] = {**found["trl, stage 1"], "checkpointing": True}
    found["trl, stage 2 LoRA"] = {**found["trl, stage 1"], "trained": "lora", "batch": 2 if size == "toy" else 8}
    return found


def run_case(
    name: str, case: dict[str, Any], scratch: Path, steps: int, profile: bool, timeout: float
) -> dict[str, Any]:
    """One case in its own process; its figures, or `error` with the end of what it said."""
    folder = scratch / name.replace(" ", "-").replace(",", "")
    folder.mkdir()
    stage = case.get("stage", "finetune" if case.get("trained") == "lora" else "pretrain")
    request = {
        **case,
        "recipe": str(scratch / "recipe.yaml"),
        "rows": str(scratch / f"{stage}.json"),
        "images": str(scratch / "images"),
        "base": str(scratch),
        "out": str(folder),
        "steps": steps,
        "profile": profile,
    }
    if case["what"] == "train":
        every = {"max_steps": steps, "log_every_steps": 1, "save_every_steps": 10**6, "loader_workers": 12}
        request["fields"] = {**case["fields"], **every}
    (folder / "request.json").write_text(json.dumps(request))
    module = "benchmarks.gpu.peer" if case["what"] == "peer" else "benchmarks.gpu.case"
    environment = {
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        **os.environ,
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29555",
    }
    began = time.monotonic()
    with (folder / "log").open("w") as log:
        try:
            done = subprocess.run(
                [sys.executable, "-m", module, str(folder / "request.json")],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"stopped after {timeout:.0f} s", "said": (folder / "log").read_text()[-1500:]}
    if done.returncode != 0:
        return {"error": f"exit {done.returncode}", "said": (folder / "log").read_text()[-3000:]}
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return {**figures, "case_seconds": round(time.monotonic() - began, 1)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the material, run the cases, print a table, write the results file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=["toy", "7b", "13b"], default="7b")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--cases", default="", help="names, separated by semicolons; default: all but the peer's")
    parser.add_argument("--profile", action="store_true", help="profile a step: where its time goes")
    parser.add_argument("--peer", action="store_true", help="trl's SFTTrainer too")
    parser.add_argument("--scratch", type=Path, help="where base models go (7B: 14 GB); default: a temporary folder")
    parser.add_argument("--seconds", type=float, default=3600, help="start no case after this many")
    parser.add_argument("--case-seconds", type=float, default=600, help="stop a case after this many")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu_train.json"))
    options = parser.parse_args(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="llava-gpu-", dir=options.scratch) as temporary:
        scratch = Path(temporary)
        memory = _make_material(scratch, options.size)
        known = cases(options.size, memory)
        wanted = [name for name in options.cases.split(";") if name] or [
            name for name, case in known.items() if options.peer or case["what"] != "peer"
        ]
        document: dict[str, Any] = {"machine": _machine(), "size": options.size, "results": {}}
        document["material_seconds"] = round(time.monotonic() - began, 1)
        for name in wanted:
            if time.monotonic() - began > options.seconds:
                document["results"][name] = {"error": "not started: no time left"}
            else:
                document["results"][name] = run_case(
                    name, known[name], scratch, options.steps, options.profile, options.case_seconds
                )
            _show(name, document["results"][name])
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(document, indent=2) + "\n")


def _make_material(scratch: Path, size: str) -> int:
    """Base models and rows, in a process that gives the GPU's memory back; the GPU's bytes (0: no GPU)."""
    code = (
        "import sys, pathlib, torch; from benchmarks.gpu import material as m\n"
        "to, size = pathlib.Path(sys.argv[1]), m.size_of(sys.argv[2])\n"
        "gpu = torch.cuda.is_available()\n"
        "m.write_base_models(to, size, torch.device('cuda' if gpu else 'cpu'))\n"
        "m.write_recipe(to / 'recipe.yaml', to)\n"
        "names = m.write_images(to / 'images', size.image_side)\n"
        "[m.write_rows(to / f'{stage}.json', names, 2000, stage) for stage in ('pretrain', 'finetune')]\n"
        "print(torch.cuda.get_device_properties(0).total_memory if gpu else 0)\n"
    )
    made = subprocess.run(
        [sys.executable, "-c", code, str(scratch), size], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return int(made.stdout.strip().splitlines()[-1])


def _show(name: str, figures: dict[str, Any]) -> None:
    if "error" in figures:
        print(f"{name:<28} {figures['error']}: {figures.get('said', '')[-1200:]}", flush=True)
    elif "samples_per_second" in figures:
        mfu = f"{figures['mfu']:.1%} MFU" if figures.get("mfu") else ""
        peak = (figures.get("memory_gib") or {}).get("peak")
        print(
            f"{name:<28}{figures['samples_per_second']:>9.2f} samples/s{figures['tokens_per_second']:>11,.0f} tokens/s "
            f"{figures['step_seconds']:>8.3f} s a step  {mfu}  {f'{peak:.1f} GiB' if peak else ''}"
            f"  data wait {figures.get('data_wait_share', 0):.1%}  ({figures['case_seconds']} s)",
            flush=True,
        )
    else:
        print(f"{name:<28} {json.dumps(figures)[:600]}", flush=True)


def _machine() -> dict[str, Any]:
    import torch

    versions = {}
    for name in VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return {"gpu": gpu, "cores": os.cpu_count(), "python": platform.python_version(), **versions}


if __name__ == "__main__":
    main()
