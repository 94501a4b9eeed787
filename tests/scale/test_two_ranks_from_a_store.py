"""Both training stages by the command line on two ranks, everything in a real S3 server, what passes being counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llava import storage
from llava.storage import clients
from llava.training import checkpoints
from tests.conftest import TinyWorld
from tests.counting_proxy import Traffic, counting
from tests.s3_server import S3Server, moto_server

pytestmark = pytest.mark.slow

STEPS = 4


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[S3Server, Traffic]]:
    with pytest.MonkeyPatch.context() as patch, moto_server() as server, counting(server) as (seen, traffic):
        for name, value in seen.environment.items():
            patch.setenv(name, value)
        clients.forget_client()
        yield seen, traffic
        clients.forget_client()


@pytest.fixture(scope="module")
def root(
    served: tuple[S3Server, Traffic],
    tiny_world: TinyWorld,
    tiny_recipe: Path,
    tiny_clip_dir: Path,
    tiny_llama_dir: Path,
) -> str:
    """A bucket with base models, rows and images."""
    uri = served[0].uri
    storage.upload(tiny_clip_dir, f"{uri}/base/clip")
    storage.upload(tiny_llama_dir, f"{uri}/base/llama")
    storage.upload(tiny_world.pretrain_json, f"{uri}/rows/pretrain.json")
    storage.upload(tiny_world.instruct_json, f"{uri}/rows/instruct.json")
    storage.upload(tiny_world.root / "train2017", f"{uri}/images/train2017")
    recipe = json.loads(tiny_recipe.read_text())
    recipe["model"] |= {"vision_tower": f"{uri}/base/clip", "language_model": f"{uri}/base/llama"}
    for stage in ("pretrain", "finetune"):
        recipe[stage] |= {"max_steps": STEPS, "save_every_steps": 2, "zero_stage": 2, "keep_checkpoints": 2}
    recipe["finetune"]["zero_stage"] = 3
    storage.write_text(f"{uri}/recipe.yaml", json.dumps(recipe))
    return uri


def llava(stage: str, root: str, folder: Path, **more: str) -> str:
    """Run a stage to its end; what it said."""
    data = "pretrain" if stage == "pretrain" else "instruct"
    out = "projector" if stage == "pretrain" else "model"
    options = {
        "recipe": f"{root}/recipe.yaml", "images-uri": f"{root}/images", "processes": "2", "threads-per-process": "1",
        "data": f"{root}/rows/{data}.json", out: f"{root}/run/{out}", "checkpoints": f"{root}/run/{stage}-checkpoints",
        "report": str(folder / "report.html"), "metrics": str(folder / "metrics"), **more,
    }  # fmt: skip
    command = [str(Path(sys.executable).with_name("llava")), stage]
    for name, value in options.items():
        command += [f"--{name}", value]
    environment = {**os.environ, "TMPDIR": str(folder), "LLAVA_IMAGE_CACHE_GB": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def size_below(root: str, prefix: str) -> int:
    return sum(item.size for item in storage.list_files(f"{root}/{prefix}"))


def image_reads(traffic: Traffic) -> dict[str, int]:
    return {
        key: n for (method, key), n in traffic.requests.items() if method == "GET" and key.startswith("images/train")
    }


def run_counted(traffic: Traffic, stage: str, root: str, folder: Path, **more: Any) -> str:
    traffic.reset()
    return llava(stage, root, folder, **more)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_stage_and_its_second_start(stage: str, served: tuple[S3Server, Traffic], root: str, tmp_path: Path) -> None:
    _, traffic = served
    more = {"projector": f"{root}/run/projector"} if stage == "finetune" else {}
    said = run_counted(
        traffic, stage, root, tmp_path, **({} if stage == "pretrain" else {"model": f"{root}/run/model", **more})
    )
    for model in ("base/clip", "base/llama"):
        assert traffic.bytes_read(model) <= 1.05 * size_below(root, model), model
        fetched = {key: n for (method, key), n in traffic.requests.items() if method == "GET" and key.startswith(model)}
        # Weights once a node; settings once a node, and once by the preflight before there are ranks.
        assert all(n == 1 for key, n in fetched.items() if key.endswith((".safetensors", ".bin"))), fetched
        assert max(fetched.values()) <= 2, fetched
    rows = f"rows/{'pretrain' if stage == 'pretrain' else 'instruct'}.json"
    assert traffic.bytes_read("rows/") <= 2.05 * (storage.size(f"{root}/{rows}") or 0)  # the stage, and the node
    assert "checking images" in said or "rows" in said

    # As if it had been killed in its last steps: only the checkpoint before them is left.
    folder = f"{root}/run/{stage}-checkpoints"
    assert checkpoints.list_steps(folder) == [2, STEPS]
    checkpoints.remove(folder, STEPS)
    before = sum(image_reads(traffic).values())
    said = run_counted(
        traffic, stage, root, tmp_path, **({} if stage == "pretrain" else {"model": f"{root}/run/model", **more})
    )
    assert "resuming from the checkpoint of step 2" in said and "were checked by an earlier start" in said
    checkpoint = size_below(root, f"run/{stage}-checkpoints/step-00000002")
    read = sum(n for key, n in traffic.read.items() if f"{stage}-checkpoints/step-00000002" in key)
    assert read <= 1.1 * checkpoint + 100_000  # manifests are small only beside real shards
    # Images of the two steps that are left and of the rehearsal; the check reads none.
    assert sum(image_reads(traffic).values()) < before
    assert sum(image_reads(traffic).values()) <= 2 * 8 + 2 * 8
