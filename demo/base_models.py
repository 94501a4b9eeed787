"""Make the demo's base models: ``python -m demo.base_models --out demo/base`` (``make base-models``).

Writes two ordinary hub directories, ``clip`` and ``llama``, which the code that loads
``openai/clip-vit-large-patch14-336`` and a Vicuna loads unchanged. Neither model ever sees, or reads of, a scene of
the demo's held-out split.

The same seed gives the same weights on the same machine and versions: training runs on one thread, and the two
models are trained beside each other in processes of their own.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import CLIPImageProcessorPil, CLIPProcessor

from demo.clip import CLIP_MEAN, CLIP_STD, ClipPlan, train_clip
from demo.language_model import LanguageModelPlan, save_language_model, train_language_model
from demo.world import held_out_scenes

HELD_OUT = 300
"""Scenes of the default world's held-out split, left out of the base models' training."""

QUICK_CLIP = ClipPlan(width=32, layers=2, heads=2, text_layers=1, projection=32, scenes=256, steps=30, batch=32)
QUICK_LANGUAGE_MODEL = LanguageModelPlan(width=32, layers=2, heads=2, fact_steps=10, dialogue_steps=15, batch=8)


def make_clip(folder: Path, plan: ClipPlan, seed: int, device: str, workers: int) -> None:
    """Train the CLIP and write its hub directory: model, image processor, tokenizer."""
    torch.set_num_threads(1)
    forbidden = {scene.signature for scene in held_out_scenes(0, HELD_OUT)}
    model, tokenizer = train_clip(plan, seed, forbidden, device=torch.device(device), workers=workers)
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": plan.resolution},
        crop_size={"height": plan.resolution, "width": plan.resolution},
        image_mean=list(CLIP_MEAN),
        image_std=list(CLIP_STD),
    )
    model.save_pretrained(folder)
    CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer).save_pretrained(folder)
    image_processor.save_pretrained(folder)  # preprocessor_config.json, where AutoImageProcessor looks for it


def make_language_model(folder: Path, plan: LanguageModelPlan, seed: int, device: str, workers: int) -> None:
    """Train the language model and write its hub directory: model and tokenizer."""
    torch.set_num_threads(1)
    forbidden = {scene.signature for scene in held_out_scenes(0, HELD_OUT)}
    model, tokenizer = train_language_model(plan, seed, forbidden, device=torch.device(device), workers=workers)
    save_language_model(model, tokenizer, folder)


def make_base_models(out: Path, *, seed: int = 0, quick: bool = False, device: str = "cpu", workers: int = 0) -> None:
    """Write ``out/clip`` and ``out/llama``. ``quick`` makes tiny, hardly trained ones in seconds, the same way."""
    clip = QUICK_CLIP if quick else ClipPlan()
    llama = QUICK_LANGUAGE_MODEL if quick else LanguageModelPlan()
    folders = [out / "clip", out / "llama"]
    makers = [
        functools.partial(make_clip, folders[0], clip, seed, device, workers),
        functools.partial(make_language_model, folders[1], llama, seed, device, workers),
    ]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=maker) for maker in makers]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    failed = [str(folder) for process, folder in zip(processes, folders, strict=True) if process.exitcode != 0]
    if failed:
        raise RuntimeError(f"training failed for {', '.join(failed)}; its messages stand above")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.base_models", description="Train the demo's base models.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "base", help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="tiny, hardly trained models in seconds, for tests")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for minutes instead of hours")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw data for each of the two")
    options = parser.parse_args(arguments)
    make_base_models(
        options.out, seed=options.seed, quick=options.quick, device=options.device, workers=options.workers
    )
    print(f"base models in {options.out}")


if __name__ == "__main__":
    main()
