"""Runs of the evaluation stage beyond one model and one benchmark: suites, endpoints, two models in one folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.errors import SettingsError, TransientError
from llava.evaluation.engines import endpoint
from llava.model import saving
from llava.retrying import Pauses
from llava.stages.evaluate import Inputs, Outputs, Settings, run
from llava.stages.stage import StageResult
from tests.conftest import TinyWorld
from tests.evaluation.chat_server import ChatServer, serving
from tests.hub_model import HubModel

pytestmark = pytest.mark.slow


def evaluate(model: Path, world: TinyWorld, out: Path, **settings: Any) -> StageResult:
    chosen = {
        "questions_uri": str(world.questions), "images_uri": world.images_uri, "batch_size": 8, "max_new_tokens": 6,
        "limit": 12, "blank_baseline": False,
    }  # fmt: skip
    outputs = Outputs(predictions=f"{out}/predictions", report=f"{out}/report.html", metrics=f"{out}/metrics")
    return run(Settings(**{**chosen, **settings}), Inputs(model=str(model)), outputs)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_several_benchmarks_share_one_model_one_report_and_one_table(
    hub_model: HubModel, tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = tmp_path / "mine.yaml"
    captions = tiny_world.questions.parent / "captions_val2017.json"
    suite.write_text(
        "title: mine\nbenchmarks:\n"
        f"- {{benchmark: custom, questions: {tiny_world.questions}, title: World, scale: 100}}\n"
        f"- {{benchmark: captions, questions: {captions}, images: {tiny_world.root / 'val2017'}, limit: 5}}\n"
        "published:\n- {model: somebody, values: {custom: 91.24}}\n"
    )
    loads: list[str] = []
    load = saving.load_model
    monkeypatch.setattr(saving, "load_model", lambda *a, **k: loads.append(str(a[0])) or load(*a, **k))  # a spy
    result = evaluate(
        hub_model.model, tiny_world, tmp_path / "out", benchmark=str(suite), limit=0, questions_uri=str(tmp_path)
    )
    assert len(loads) == 1
    one = evaluate(hub_model.model, tiny_world, tmp_path / "one", limit=0)
    assert result.metrics["custom_accuracy"] == one.metrics["accuracy"]
    assert result.metrics["captions_questions"] == 5 and "captions_cider" in result.metrics
    predictions = tmp_path / "out/predictions"
    assert rows_of(predictions / "custom/finetuned.jsonl") == rows_of(tmp_path / "one/predictions/finetuned.jsonl")
    page = (tmp_path / "out/report.html").read_text()
    assert '<th class="">World</th>' in page and "91.2" in page and "data hash" in page and "In float32" in page
    about = json.loads((predictions / "custom/finetuned.about.json").read_text())
    assert about["headline"] == "accuracy" and about["model"] == str(hub_model.model) and about["questions"] > 12


def test_a_missing_benchmark_is_told_before_a_model_is_read(tiny_world: TinyWorld, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no folder for gqa .*pope"):
        evaluate(tmp_path / "no-model", tiny_world, tmp_path, benchmark="gqa,pope", questions_uri=str(tmp_path))


def test_two_models_in_one_folder_keep_their_answers(
    hub_model: HubModel, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(hub_model.model, other)
    (other / "manifest.json").unlink(missing_ok=True)
    weights = load_file(other / "model.safetensors")
    weights = {name: value + 0.05 * torch.randn_like(value) for name, value in weights.items()}
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    folder = tmp_path / "out/predictions"
    evaluate(hub_model.model, tiny_world, tmp_path / "out")
    first, whose = (
        (folder / "finetuned.jsonl").read_bytes(),
        json.loads((folder / "finetuned.about.json").read_text())["whose"],
    )
    evaluate(other, tiny_world, tmp_path / "out")
    second = (folder / "finetuned.jsonl").read_bytes()
    assert second != first and (folder / f"finetuned-{whose}.jsonl").read_bytes() == first
    changed = (folder / f"finetuned-{whose}.jsonl").stat().st_mtime_ns
    assert changed
    evaluate(hub_model.model, tiny_world, tmp_path / "out")  # and back again: nothing is asked, nothing lost
    assert (folder / "finetuned.jsonl").read_bytes() == first
    assert [path.read_bytes() for path in folder.glob("finetuned-????????.jsonl")] == [second]


def test_another_dtype_is_another_set_of_answers(hub_model: HubModel, tiny_world: TinyWorld, tmp_path: Path) -> None:
    evaluate(hub_model.model, tiny_world, tmp_path / "out")
    evaluate(hub_model.model, tiny_world, tmp_path / "out", dtype="bfloat16")
    assert len(list((tmp_path / "out/predictions").glob("finetuned*.jsonl"))) == 2
    page = (tmp_path / "out/report.html").read_text()
    assert "bfloat16, batch 8" in page and "another batch size (or card) may change a few answers" in page


def colour(text: str, images: list[Image.Image]) -> str:
    red, green, blue = images[0].resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]
    return f"{text.split()[0]} {red // 8} {green // 8} {blue // 8}"


def test_an_endpoint_that_dies_half_way_loses_nothing(
    hub_model: HubModel, tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "PAUSES", Pauses(first=0.01, longest=0.02))
    with serving(ChatServer(colour, most=7)) as server:
        asking = {"endpoint": server.url, "concurrency": 2, "blank_baseline": True, "limit": 12}
        with pytest.raises(TransientError, match="is gone .*run the same"):
            evaluate(hub_model.model, tiny_world, tmp_path / "out", **asking)
        parts = list((tmp_path / "out/predictions").glob("finetuned-*.parts/*.jsonl"))
        kept = {row["id"]: row["answer"] for path in parts for row in rows_of(path)}
        assert len(kept) == 7 and not (tmp_path / "out/report.html").exists()
        server.most = None
        result = evaluate(hub_model.model, tiny_world, tmp_path / "out", **asking)
        assert result.metrics["questions"] == 12
        assert len(server.bodies) == 12 + 12  # nothing twice; the blind one afterwards
    answers = {row["id"]: row["answer"] for row in rows_of(tmp_path / "out/predictions/finetuned.jsonl")}
    assert len(answers) == 12 and {key: answers[key] for key in kept} == kept
    assert answers != {row["id"]: row["answer"] for row in rows_of(tmp_path / "out/predictions/blank.jsonl")}
    page = (tmp_path / "out/report.html").read_text()
    assert "endpoint http://127.0.0.1" in page and "How the server batches" in page


def test_refused_questions_are_counted_and_above_the_threshold_an_error(
    hub_model: HubModel, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    asked: list[str] = []

    def say(text: str, images: list[Image.Image]) -> str | tuple[int, str]:
        asked.append(text)
        return (400, "too long") if len(asked) in (2, 5) else "red"

    with serving(ChatServer(say)) as server:
        with pytest.raises(Exception, match=r"2 of 12 questions .*or were refused.*max_bad_rows.*400: too long"):
            evaluate(hub_model.model, tiny_world, tmp_path / "a", endpoint=server.url, concurrency=1)
        asked.clear()
        result = evaluate(
            hub_model.model, tiny_world, tmp_path / "b", endpoint=server.url, concurrency=1, max_bad_rows=0.5
        )
    assert result.metrics["questions"] == 10 and result.metrics["questions_left_out"] == 2
    assert "400: too long" in (tmp_path / "b/report.html").read_text()


def test_an_endpoint_is_asked_by_one_process(hub_model: HubModel, tiny_world: TinyWorld, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="processes: an endpoint is asked by one process"):
        evaluate(hub_model.model, tiny_world, tmp_path, endpoint="http://127.0.0.1:9/v1", processes="2")
