"""One case of `benchmarks.gpu_train` in a process of its own: `python -m benchmarks.gpu.case REQUEST.json`.

The loop is the product's own (`llava.training.loop`), with its loader, meters and profiler; only saving is left out,
since a checkpoint of a 7B is 81 GB. The last line of stdout is the result as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

WARM_UP = 3  # compiling and allocating
PROFILED = 2  # the profiled step, and the one that waits for its trace


def train(request: dict[str, Any]) -> dict[str, Any]:
    """Train some steps; speeds over the steps after the warm-up."""
    from llava.config import load_recipe
    from llava.planning.memory import memory
    from llava.planning.shape import Shape
    from llava.telemetry import Telemetry
    from llava.training import launch, rehearsal, throughput
    from llava.training.checkpoints import CheckpointWriter
    from llava.training.engine import Engine, device_of_this_rank
    from llava.training.job import Job
    from llava.training.loop import Loop
    from llava.training.modelling import build_model_for, build_processor_for
    from llava.training.profiling import StepProfiler
    from llava.training.state import Identity, RunState
    from llava.training.training_rows import load_rows

    class Timed(Loop):
        def _save(self, done: int) -> None:
            """Nothing: see the module's text."""

    stage, out = request["stage"], Path(request["out"])
    changes: dict[str, Any] = {f"{stage}.{name}": value for name, value in request["fields"].items()}
    if layers := request.get("layers"):
        changes["model.language_model"] = _shallower(Path(request["base"]) / "llama", out / "llama", layers)
    job = Job(
        stage=stage,
        recipe=load_recipe(request["recipe"], changes),
        data_uri=request["rows"],
        images_uri=request["images"],
        output_uri=str(out / "output"),
        checkpoints_uri=str(out / "checkpoints"),
        result_uri=str(out / "result.json"),
        failure_uri=str(out / "failures"),
    )
    recipe, seconds, began = job.train, {}, time.monotonic()

    def lap(name: str) -> None:
        nonlocal began
        seconds[name] = round(time.monotonic() - began, 2)
        began = time.monotonic()

    device = device_of_this_rank()
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", init_method=f"file://{out}/group", rank=0, world_size=1
    )
    telemetry = Telemetry(stage, "benchmark", rank=0)
    processor = build_processor_for(job)
    data = load_rows(job, processor, telemetry, 0, 1, device)
    lap("rows")
    model = build_model_for(job, processor, device)
    lap("model")
    engine = Engine(model, recipe, 1)
    lap("engine")
    states = _allocated()
    batch = data.heaviest_micro_batches()[0]
    rehearsal.heaviest_step(engine, data)
    lap("rehearsal")
    rehearsed = _peak()
    profiler = StepProfiler(int(request["profile"]), str(out / "profile"))
    state = RunState(identity=Identity(stage=stage, recipe={}, data="", frozen="", steps=data.total_steps))
    loop = Timed(
        engine=engine,
        recipe=recipe,
        state=state,
        writer=CheckpointWriter(
            job.checkpoints_uri, rank=0, world_size=1, zero_stage=engine.zero_stage, save_id="x", keep=1
        ),
        telemetry=telemetry,
        batches=data.batches(0),
        to_device=data.to_device,
        record_ids=data.record_id,
        rank=0,
        world_size=1,
        first_step=0,
        total_steps=data.total_steps,
        profiler=profiler,
    )
    loop.run()
    lap("steps")
    meter = throughput.Throughput(model, job.recipe, stage, data.plan, device)
    timed = state.history[WARM_UP + PROFILED * request["profile"] :]
    spent = sum(record.seconds or 0.0 for record in timed)
    rows = sum(len(data.plan.rows(record.step - 1)) for record in timed)
    flops = sum(meter.step_flops(record.step) for record in timed)
    shape = Shape.of(model.config, job.recipe.model.projector)
    load = {"tokens": batch.tokens, "images": len(batch.pixel_values_ICHW), "positions": len(batch.target_ids_K)}
    total = torch.cuda.get_device_properties(0).total_memory if device.type == "cuda" else 2**34
    planned = memory(shape, stage, recipe, gpus=1, gpu_bytes=total, **load)
    profile = profiler.result
    return {
        "samples_per_second": rows / spent,
        "tokens_per_second": sum(record.tokens for record in timed) / spent,
        "model_tflops_per_second": flops / spent / 1e12,
        "mfu": flops / spent / meter.peak if meter.peak else None,
        "step_seconds": spent / len(timed),
        "data_wait_share": sum(record.data_wait_seconds or 0.0 for record in timed) / spent,
        "padding_share": sum(record.padding for record in timed) / len(timed),
        "steps_timed": len(timed),
        "rows_per_step": recipe.global_batch_size,
        "losses": [round(record.loss, 4) for record in state.history],
        "memory_gib": {"states": states, "rehearsal_peak": rehearsed, "peak": _peak(), "reserved": _reserved()},
        "planned_gib": {
            "total_without_reserve": (planned.total - planned.reserve) / 2**30,
            "states": planned.states / 2**30,
        },
        "heaviest_micro_batch": load,
        "seconds": seconds,
        "profile": profile.model_dump(mode="json") if profile else None,
        "gpus_counted": launch._gpus(),
    }


def generate(request: dict[str, Any]) -> dict[str, Any]:
    """Greedy answers one by one and in batches: the same tokens?, tokens a second."""
    from PIL import Image

    from llava.config import load_recipe
    from llava.data.templates import get_template
    from llava.model.build import build_model, build_processor
    from llava.model.generation import GenerationRequest
    from llava.model.generation import generate as answer

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = load_recipe(request["recipe"])
    template = get_template("v1")
    processor = build_processor(recipe.model, template, "pad")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = build_model(recipe.model, tokenizer=processor.tokenizer, dtype=dtype, device=device)
    from llava.data.records import Turn

    names = sorted(Path(request["images"]).glob("*.jpg"))[: request["requests"]]
    prompt = template.prompt([Turn("human", "<image>\nred circle top left")])
    asked = [GenerationRequest(prompt, [Image.open(name).convert("RGB")]) for name in names]
    figures: dict[str, Any] = {"requests": len(asked), "new_tokens": request["new_tokens"]}
    more = {"max_new_tokens": request["new_tokens"], "stop": []}
    answer(model, processor, asked[:2], batch_size=2, **more)
    for batch in request["batches"]:
        used = asked[: max(batch, 4)] if batch == 1 else asked
        began = time.monotonic()
        found = answer(model, processor, used, batch_size=batch, **more)
        if device.type == "cuda":
            torch.cuda.synchronize()
        spent = time.monotonic() - began
        figures[f"batch {batch}"] = {
            "requests": len(used),
            "seconds": spent,
            "requests_per_second": len(used) / spent,
            "answers_as_one_by_one": None,
        }
        if batch == 1:
            alone = found
        else:
            figures[f"batch {batch}"]["answers_as_one_by_one"] = sum(
                a == b for a, b in zip(alone, found, strict=False)
            ) / len(alone)
    figures["peak_gib"] = _peak()
    return figures


def onnx(request: dict[str, Any]) -> dict[str, Any]:
    """Tower and projector of the full size exported and compared, by the export stage's own code."""
    from llava.config import load_recipe
    from llava.data.templates import get_template
    from llava.model.build import build_model, build_processor
    from llava.model.saving import save_model
    from llava.stages import export

    out = Path(request["out"])
    recipe = load_recipe(request["recipe"])
    processor = build_processor(recipe.model, get_template("v1"), "pad")
    model = build_model(recipe.model, tokenizer=processor.tokenizer, dtype=torch.bfloat16)
    save_model(model, processor, str(out / "model"))
    settings = export.Settings(precisions="fp32,fp16")
    outputs = export.Outputs(**{name: str(out / name) for name in export.Outputs.model_fields})
    began = time.monotonic()
    result = export.run(settings, export.Inputs(model=str(out / "model")), outputs)
    return {"seconds": time.monotonic() - began, **result.metrics}


def _shallower(whole: Path, folder: Path, layers: int) -> str:
    """The same model with its first layers only: the files are linked, the configuration names fewer."""
    folder.mkdir()
    for path in whole.iterdir():
        if path.name != "config.json":
            (folder / path.name).symlink_to(path)
    config = json.loads((whole / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers}))
    return str(folder)


def _allocated() -> float | None:
    return torch.cuda.memory_allocated() / 2**30 if torch.cuda.is_available() else None


def _peak() -> float | None:
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None


def _reserved() -> float | None:
    return torch.cuda.max_memory_reserved() / 2**30 if torch.cuda.is_available() else None


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text())
    answer = {"train": train, "generate": generate, "onnx": onnx}[asked["what"]](asked)
    print(json.dumps(answer), flush=True)
