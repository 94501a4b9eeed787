"""Greedy answers: ours in batches beside the stock class's `generate`, one request at a time, in one process.

    python -m benchmarks.generation --model runs/demo/.../finetune/model

The model is a demo run's, or any saved directory; the first GPU is taken where there is one. On a GPU machine without
files, `--model 7b --dtype bfloat16` (or `13b`, `toy`) builds the published shape with random weights first; those never
end an answer, so every one is `--max-new-tokens` long. The requests are a mix over generated scenes: questions of a
word, descriptions, and long prompts with a conversation, so prompts have from 30 to some hundred tokens and answers of
a trained model from one to `--max-new-tokens`. Both sides process the images, run the tower and answer; both see the
same requests in the same order. Answers must be equal, and the count of those that are is printed: in float32 all, in
half precision two logits may tie within rounding. The sides take turns for `--rounds` rounds and the best of each
counts, so run it on a quiet machine. Figures go to benchmarks/results/generation.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "generation.json"
BUILT = ("toy", "7b", "13b")
SHORT = "\nAnswer the question using a single word or phrase."
ASKS = (
    "How many shapes are there?" + SHORT,
    "Describe the image in detail.",
    "Is there a red circle?" + SHORT,
    "What is shown? Describe the image in one sentence.",
)


def requests_of(folder: Path, processor: Any, count: int) -> list[Any]:
    """The mix: every fourth prompt has an earlier conversation of one to eight exchanges in it."""
    from PIL import Image

    from demo.world import write_world
    from llava.model.generation import GenerationRequest

    write_world(folder, train=count, held_out=4, seed=3)
    files = sorted((folder / "train2017").glob("*.jpg"))
    made = []
    for number in range(count):
        with Image.open(files[number % len(files)]) as opened:
            image = opened.convert("RGB")
        messages: list[dict[str, Any]] = []
        if number % 4 == 3:
            for turn in range(1 + number // 4 % 8):
                messages += [_said("user", ASKS[turn % 4], first=turn == 0), _said("assistant", "a red circle.")]
        messages.append(_said("user", ASKS[number // 2 % 4], first=not messages))
        prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        made.append(GenerationRequest(str(prompt), [image]))
    return made


def _said(role: str, text: str, *, first: bool = False) -> dict[str, Any]:
    content = [{"type": "image"}] if role == "user" and first else []
    return {"role": role, "content": [*content, {"type": "text", "text": text}]}


def built(name: str, folder: Path) -> str:
    """A saved model of a published shape with random weights, in bfloat16; 13 or 26 GB on disk, twice for a while."""
    import torch

    from benchmarks.gpu.material import size_of, write_base_models, write_recipe
    from llava.config import load_recipe
    from llava.data.templates import get_template
    from llava.model.build import build_model, build_processor
    from llava.model.saving import save_model

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    write_base_models(folder, size_of(name), device)
    write_recipe(folder / "recipe.yaml", folder)
    recipe = load_recipe(str(folder / "recipe.yaml"))
    processor = build_processor(recipe.model, get_template("v1"), "pad")
    model = build_model(recipe.model, tokenizer=processor.tokenizer, dtype=torch.bfloat16)
    save_model(model, processor, str(folder / "model"))
    return str(folder / "model")


def stock(model: Any, processor: Any, requests: list[Any], most: int) -> list[str]:
    """What a script of a few lines does: processor, `generate`, decode, for each request."""
    import torch

    answers = []
    for request in requests:
        inputs = processor(text=request.prompt, images=list(request.images), return_tensors="pt")
        inputs = inputs.to(model.device, dtype=model.dtype)
        with torch.inference_mode():
            out = model.generate(**inputs, do_sample=False, max_new_tokens=most, use_cache=True)
        new = out[0, inputs["input_ids"].shape[1] :]
        answers.append(processor.tokenizer.decode(new, skip_special_tokens=True).strip())
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=int, default=192)
    parser.add_argument("--batch-sizes", default="1,8,16,64")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--note", default="", help="said beside the figures, such as that the machine was not quiet")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        place = built(arguments.model, folder / "built") if arguments.model in BUILT else arguments.model
        measure(arguments, place, folder / "world")


def measure(arguments: argparse.Namespace, place: str, world: Path) -> None:
    """Take turns, count equal answers, write the figures."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from llava.model.generation import generate
    from llava.model.saving import load_model

    device, dtype = ("cuda" if torch.cuda.is_available() else "cpu"), getattr(torch, arguments.dtype)
    processor = AutoProcessor.from_pretrained(place)
    theirs = AutoModelForImageTextToText.from_pretrained(place, dtype=dtype).to(device).eval()
    theirs.config.text_config.use_cache = True
    ours = load_model(place, dtype=dtype, device=device)
    sizes = [int(size) for size in arguments.batch_sizes.split(",")]
    requests = requests_of(world, processor, arguments.requests)
    sides: dict[str, Callable[[], list[str]]] = {
        "stock": lambda: stock(theirs, processor, requests, arguments.max_new_tokens)
    }
    for size in sizes:
        sides[f"batch {size}"] = lambda size=size: generate(  # type: ignore[misc]
            ours, processor, requests, batch_size=size, max_new_tokens=arguments.max_new_tokens
        )
    best: dict[str, float] = {}
    answers: dict[str, list[str]] = {}
    for _ in range(arguments.rounds):
        for name, run in sides.items():
            began = time.perf_counter()
            answers[name] = run()
            best[name] = min(best.get(name, float("inf")), time.perf_counter() - began)
    lengths = [len(processor.tokenizer(text).input_ids) for text in answers["stock"]]
    results: dict[str, Any] = {
        "hardware": torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} CPUs, {_cpu()}",
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
        "python": platform.python_version(),
        "settings": {**vars(arguments), "model": Path(arguments.model).name},
        "answer_tokens": {"least": min(lengths), "mean": sum(lengths) / len(lengths), "most": max(lengths)},
        "sides": {
            name: {
                "seconds": round(seconds, 3),
                "requests_per_second": round(len(requests) / seconds, 2),
                "times_stock": round(best["stock"] / seconds, 2),
                "answers_equal": sum(a == b for a, b in zip(answers[name], answers["stock"], strict=True)),
            }
            for name, seconds in best.items()
        },
    }
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    of_shape = f" {arguments.model}" if arguments.model in BUILT else ""
    known[f"{device} {arguments.dtype}{of_shape}"] = results
    RESULTS.write_text(json.dumps(known, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
