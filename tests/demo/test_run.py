"""The whole demo, made small: every stage for real, in an object store, and stopped on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from PIL import Image

from demo import run
from llava import cli, storage
from tests.browser import visit
from tests.s3_server import S3Server

STEPS = 40
PATIENCE_S = 240


def arguments(out: Path, *more: str) -> list[str]:
    """Command line of a demo with few pictures and steps, and a checkpoint every second step."""
    parameters = {
        "expand_mixture": "",
        "expand_kinds": "conversation",
        "pretrain_overrides": json.dumps({"pretrain.max_steps": STEPS, "pretrain.save_every_steps": 2}),
        "finetune_overrides": json.dumps({"finetune.max_steps": STEPS, "finetune.save_every_steps": 2}),
        "evaluate_limit": "12",
        "evaluate_max_new_tokens": "8",
        "export_precisions": "fp32",
    }
    given = [part for name, value in parameters.items() for part in ("--param", f"{name}={value}")]
    return ["--out", str(out), "--train", "64", "--held-out", "12", *given, *more]


@contextmanager
def started(out: Path, said: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A demo started as a terminal would: a process group of its own, which Ctrl-C reaches as a whole."""
    with said.open("wb") as file:
        command = [sys.executable, "-m", "demo.run", *arguments(out)]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(what: Callable[[], Any], process: subprocess.Popen[bytes], said: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert process.poll() is None and time.monotonic() < deadline, said.read_text()
        time.sleep(0.05)


def checkpoints(out: Path, stage: str) -> list[Path]:
    return list((out / "pipeline").glob(f"llava-full-*/{stage}/checkpoints/step-*/manifest.json"))


@pytest.mark.slow
def test_artifacts_in_an_object_store(
    tmp_path: Path, rclone_s3: S3Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "")  # the demo sets it
    root = f"{rclone_s3.uri}/demo"
    assert run.main(arguments(tmp_path / "out", "--root", root)) == 0
    summary = storage.read_json(str(tmp_path / "out/summary.json"))
    assert not summary["cached"] and set(summary["stages"]) == {"expand", "pretrain", "finetune", "evaluate", "export"}
    for name, uri in summary["paths"].items():
        assert storage.exists(uri), name
        assert uri.startswith(f"{root}/llava-full-") == (name not in ("report", "package")), name
    assert storage.exists(storage.join(summary["paths"]["onnx"], "onnx/vision_encoder.onnx"))
    assert (tmp_path / "out/report.html").read_text().count("<iframe") == 5
    assert not list((tmp_path / "out/pipeline").rglob("*.safetensors")), "nothing big stays here"

    capsys.readouterr()
    assert run.main(arguments(tmp_path / "out", "--root", root)) == 0
    said = capsys.readouterr()
    again = storage.read_json(str(tmp_path / "out/summary.json"))
    assert again["cached"] and all(stage["cached"] for stage in again["stages"].values())
    assert {**again["paths"], **summary["paths"]} == again["paths"] and again["accuracy"] == summary["accuracy"]
    assert said.out.count("(cached)") == 5 and f"--model {summary['paths']['model']}" in said.out

    picture = next((tmp_path / "out/world/val2017").glob("*.jpg"))
    with pytest.raises(SystemExit) as ended:
        cli.main(["chat", "--model", summary["paths"]["model"], "--image", str(picture), "How many shapes are there?"])
    assert ended.value.code == 0 and capsys.readouterr().out.strip()

    if shutil.which("chromium"):
        for name in [name for name in summary["paths"] if name.endswith("report")]:
            page = tmp_path / f"{name}.html"
            storage.download(summary["paths"][name], page)
            for width in (1100, 420):
                seen = visit(page, tmp_path / "browser", width=width, height=1200)
                assert seen.console == [] and seen.requests == [], name
                assert len(Image.open(seen.picture).convert("RGB").getcolors(10**6) or []) > 20, (
                    f"{name}: nothing drawn"
                )


@pytest.mark.slow
def test_a_stopped_demo_leaves_nothing_running_and_goes_on(tmp_path: Path) -> None:
    """Ctrl-C in stage 1, kill -9 of the demo alone in stage 2, then to the end; what was done is not done again."""
    out = tmp_path / "out"
    resumes = "an earlier attempt did not end; resuming from what it left"

    with started(out, tmp_path / "first.txt") as first:
        wait_for(lambda: checkpoints(out, "pretrain"), first, tmp_path / "first.txt")
        children = psutil.Process(first.pid).children(recursive=True)
        os.killpg(first.pid, signal.SIGINT)
        assert first.wait(timeout=60) == 130
        assert len(children) >= 2 and not [process for process in children if process.is_running()]
    said = (tmp_path / "first.txt").read_text()
    assert said.rstrip().splitlines()[-1].startswith("demo: interrupted; the same command resumes from here")
    assert "Traceback" not in said

    with started(out, tmp_path / "second.txt") as second:
        wait_for(lambda: checkpoints(out, "finetune"), second, tmp_path / "second.txt")
        children = psutil.Process(second.pid).children(recursive=True)
        second.kill()
        second.wait()
        assert len(children) >= 2 and psutil.wait_procs(children, timeout=30)[1] == []
    said = (tmp_path / "second.txt").read_text()
    assert f"pretrain: {resumes}" in said and "pretrain  resuming from the checkpoint of step" in said
    assert "] expand" not in said, "it was done, and comes from the cache"

    with started(out, tmp_path / "third.txt") as third:
        assert third.wait(timeout=PATIENCE_S) == 0
    said = (tmp_path / "third.txt").read_text()
    assert f"finetune: {resumes}" in said and "finetune  resuming from the checkpoint of step" in said
    assert "] pretrain" not in said and f"evaluate: {resumes}" not in said
    summary = json.loads((out / "summary.json").read_text())
    assert {name for name, stage in summary["stages"].items() if stage["cached"]} == {"expand", "pretrain"}
    assert Path(summary["paths"]["model"]) == (out / "model").resolve()
