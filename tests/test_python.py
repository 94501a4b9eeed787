"""`from llava import load, run_stage`: what docs/using.md promises of Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import llava
from llava.errors import SettingsError, UserError
from tests.cli.test_chat import expected, picture_of
from tests.conftest import TinyWorld
from tests.hub_model import HubModel, hub_model

__all__ = ["hub_model"]


@pytest.mark.slow
def test_a_model_is_loaded_and_asked(hub_model: HubModel, tiny_world: TinyWorld) -> None:
    path = picture_of(tiny_world)
    model = llava.load(hub_model.model)
    [said] = expected(hub_model.model, path, ["Where is it?"], 9)
    pieces: list[str] = []
    assert model.answer(path, "Where is it?", max_new_tokens=9, stream=pieces.append) == said
    assert "".join(pieces).strip() == said
    for image in (Path(path), Path(path).read_bytes(), Image.open(path)):
        assert model.answer(image, "Where is it?", max_new_tokens=9) == said
    assert model.answer_all([(path, "Where is it?"), (None, "Hello?"), (path, "Where is it?")], max_new_tokens=9) == [
        said,
        model.answer(None, "Hello?", max_new_tokens=9),
        said,
    ]
    assert model.answer([path, path], "Compare.", temperature=1.0, seed=1) == model.answer(
        [path, path], "Compare.", temperature=1.0, seed=1
    )


def test_what_cannot_be_asked_is_said(hub_model: HubModel, tmp_path: Path) -> None:
    model = llava.load(hub_model.model)
    (tmp_path / "text.jpg").write_text("no image")
    for image, question, said in (
        (tmp_path, "q", "is a folder"),
        (tmp_path / "text.jpg", "q", "text.jpg"),
        (tmp_path / "gone.jpg", "q", "gone.jpg"),
        (None, "<image> q", "found <image>"),
    ):
        with pytest.raises(UserError, match=said):
            model.answer(image, question)
    with pytest.raises(SettingsError, match=r"expected a directory with a config\.json"):
        llava.load(tmp_path / "nowhere")


@pytest.mark.slow
def test_a_stage_runs_from_python(hub_model: HubModel, tiny_world: TinyWorld, tmp_path: Path) -> None:
    done = llava.run_stage(
        "evaluate",
        model=str(hub_model.model),
        benchmark="custom",
        questions_uri=str(tiny_world.questions),
        images_uri=tiny_world.images_uri,
        limit=4,
        blank_baseline=False,
        out=str(tmp_path),
    )
    assert isinstance(done, llava.Called)
    assert done.metrics and Path(done.places["report"]).exists()


def test_a_wrong_call_is_found_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected one of expand, pretrain, finetune, evaluate, export"):
        llava.run_stage("train")
    with pytest.raises(SettingsError, match="modell: no such setting, input or output"):
        llava.run_stage("export", modell="m", out=str(tmp_path))
    with pytest.raises(SettingsError, match="nowhere to write"):
        llava.run_stage("export", model="m")
    # A mapping is what a JSON setting means: it is read as one.
    with pytest.raises(SettingsError, match="did you mean max_steps"):
        llava.run_stage("pretrain", data="rows.json", overrides={"pretrain.max_step": 1}, out=str(tmp_path))
    with pytest.raises(SettingsError, match="overrides: found .*JSON"):
        llava.run_stage("pretrain", data="rows.json", overrides={"pretrain.max_steps": {1, 2}}, out=str(tmp_path))


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, llava; assert not {'torch', 'transformers', 'pydantic', 'boto3'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert (Path(llava.__file__).parent / "py.typed").exists()
