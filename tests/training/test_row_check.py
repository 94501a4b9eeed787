"""The check before step 1, on real files: every fault is found, named and counted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llava.config import ModelRecipe
from llava.data.images import ImageSource
from llava.data.labels import RowEncoder
from llava.data.preprocess import Preprocessor
from llava.data.records import read_records
from llava.data.templates import get_template
from llava.errors import DataError
from llava.training.row_check import CheckedRows, check_rows, check_share
from tests.conftest import TinyWorld, turns


@pytest.fixture(scope="module")
def processor(tiny_clip_dir: Path, tiny_llama_dir: Path) -> Any:
    from llava.model.processor import build_processor

    recipe = ModelRecipe(vision_tower=str(tiny_clip_dir), language_model=str(tiny_llama_dir))
    return build_processor(recipe, "x", "pad")


@pytest.fixture
def images(tiny_world: TinyWorld, tmp_path: Path) -> Path:
    """Three good pictures, one cut short, one that is text."""
    for number, path in enumerate(sorted((tiny_world.root / "train2017").glob("*.jpg"))[:4]):
        shutil.copy(path, tmp_path / f"{number}.jpg")
    (tmp_path / "3.jpg").write_bytes((tmp_path / "3.jpg").read_bytes()[:300])
    (tmp_path / "4.jpg").write_text("not a picture")
    return tmp_path


def row(image: str | None, answer: str = "A red circle.") -> dict[str, Any]:
    question = "What is it?" if image is None else "<image>\nWhat is it?"
    return {
        "id": f"id-{image}",
        **({} if image is None else {"image": image}),
        "conversations": turns(question, answer),
    }


def check(rows: list[dict[str, Any]], images: Path, processor: Any, max_length: int = 192) -> CheckedRows:
    path = images / "rows.json"
    path.write_text(json.dumps(rows))
    encoder = RowEncoder(get_template("v1"), processor.tokenizer, max_length=max_length)
    return check_rows(
        read_records(str(path)).records,
        encoder,
        ImageSource(str(images)),
        Preprocessor.from_processor(processor),
        file=str(path),
        threads=4,
        progress=lambda done, total: None,
    )


def test_good_rows_pass_with_their_facts(images: Path, processor: Any) -> None:
    found = check([row("0.jpg"), row(None), row("1.jpg", "A large blue square.")], images, processor)
    assert found.usable == [0, 1, 2]
    assert not found.problems
    assert found.facts.image_counts.tolist() == [1, 0, 1]
    assert (found.facts.supervised > 0).all()
    assert found.facts.lengths[0] - found.facts.lengths[1] >= 16  # the visual tokens


def test_each_fault_is_found_and_named(images: Path, processor: Any) -> None:
    rows = [
        row("0.jpg"),
        row("gone.jpg"),
        row("3.jpg"),
        row("4.jpg"),
        row("1.jpg"),
        row("0.jpg", "</s> is a control token"),
    ]
    found = check(rows, images, processor)
    assert found.usable == [0, 4]
    assert [(p.row, p.problem) for p in found.problems] == [
        (1, "image-missing"),
        (2, "image-corrupt"),
        (3, "image-corrupt"),
        (5, "control-token"),
    ]
    assert "gone.jpg" in str(found.problems[0])
    assert len(found.facts.lengths) == 2


def test_a_row_cut_until_nothing_is_left_to_learn(images: Path, processor: Any) -> None:
    found = check([row("0.jpg"), row(None)], images, processor, max_length=12)
    assert {problem.problem for problem in found.problems} == {"no-labels"}
    assert found.usable == []


def test_an_image_of_many_rows_is_read_once(images: Path, processor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = ImageSource.read
    monkeypatch.setattr(ImageSource, "read", lambda self, ref: (read.append(ref), original(self, ref))[1])
    check([row("0.jpg")] * 600, images, processor)
    assert read == ["0.jpg"]


def test_the_share_decides(images: Path, processor: Any) -> None:
    problems = check([row("gone.jpg"), row("3.jpg")], images, processor).problems
    check_share(problems, total=10, allowed=0.2, file="rows.json")
    check_share([], total=10, allowed=0.0, file="rows.json")
    with pytest.raises(DataError, match=r"2 of 10 rows .*1 image-missing, 1 image-corrupt.*max_bad_rows = 0\.1"):
        check_share(problems, total=10, allowed=0.1, file="rows.json")
