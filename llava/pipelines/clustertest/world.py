"""What the cluster test's runs train on: a small world and base models, put below a prefix of the user's bucket."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava import storage

# Writes world, base models and mixture into a folder, and gives the pipeline parameters for them where the folder is.
MakeWorld = Callable[[Path], Callable[[str], dict[str, Any]]]
_UPLOADS = 16


@dataclass(frozen=True)
class Size:
    """How large the runs are: pods small enough for kind, steps few enough for minutes.

    Attributes:
        cpu, memory: of every stage's pod.
        accelerators: of the accelerated stages' pods.
        steps: optimiser steps of an ordinary training stage.
        fault_steps: of a training stage that loses a process or its pod; long enough to be caught at work.
        save_every: steps between the checkpoints that a fault resumes from.
    """

    cpu: str = "1"
    memory: str = "4Gi"
    accelerators: str = "0"
    steps: int = 30
    fault_steps: int = 400
    save_every: int = 20


def put_world(make_world: MakeWorld, prefix: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Draw the world, upload it below `prefix`; returns the pipeline parameters that lead to it."""
    place = storage.join(prefix, "world")
    with tempfile.TemporaryDirectory(prefix="llava-clustertest-") as scratch:
        folder = Path(scratch)
        parameters_at = make_world(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        say(f"uploading {len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB, to {place}")
        with ThreadPoolExecutor(_UPLOADS) as pool:
            list(pool.map(lambda f: storage.upload(f, storage.join(place, f.relative_to(folder).as_posix())), files))
    return parameters_at(place)


def run_parameters(declared: Mapping[str, Any], data: Mapping[str, Any], size: Size, **further: Any) -> dict[str, Any]:
    """Parameters of one run: those of `data` and `size` that the package declares, and `further` over them."""
    values = dict(data)
    for group in ("expand", "train", "evaluate", "export"):
        values |= {f"{group}_cpu": size.cpu, f"{group}_memory": size.memory}
    values |= {f"{group}_accelerators": size.accelerators for group in ("train", "evaluate")}
    for stage in ("pretrain", "finetune"):
        values[f"{stage}_overrides"] = training(stage, size.steps, max(size.steps // 3, 1))
    values |= {"processes": "auto" if size.accelerators != "0" else "1", "threads_per_process": 1}
    return {name: value for name, value in {**values, **further}.items() if name in declared}


def training(stage: str, steps: int, save_every: int, **fields: Any) -> dict[str, Any]:
    """Overrides of a training stage's recipe."""
    return {
        f"{stage}.max_steps": steps,
        f"{stage}.save_every_steps": save_every,
        **{f"{stage}.{name}": value for name, value in fields.items()},
    }
