"""Mixtures of sources of several forms: weights, order, and that a resumed run sees the same rows."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from llava.config import load_recipe
from llava.data.batch_plan import BatchPlan
from llava.data.check import check_rows
from llava.data.images import ImageSource
from llava.data.records import read_records
from llava.errors import DataError, SettingsError
from tests.data.test_row_sources import COLOURS, png, row, write_images


def sources(folder: Path) -> Path:
    write_images(folder / "images")
    (folder / "a.json").write_text(json.dumps([row(0, "red.png") | {"id": f"a{n}"} for n in range(20)]))
    lines = [row(1, "green.png") | {"id": f"b{n}"} for n in range(10)]
    (folder / "b.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with tarfile.open(folder / "c.tar", "w") as tar:
        for number in range(4):
            for ending, data in (("txt", b"blue"), ("png", png("blue"))):
                info = tarfile.TarInfo(f"c{number}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    mixture = folder / "mix.yaml"
    mixture.write_text(
        "name: mine\nseed: 3\nparts:\n- {data: a.json, weight: 0.5}\n- {data: b.jsonl, weight: 2.5}\n"
        "- {data: c.tar, limit: 3}\n"
    )
    return mixture


def test_weights_are_shares_and_every_image_is_found(tmp_path: Path) -> None:
    file = read_records(str(sources(tmp_path)))
    counted = Counter(record.turns[1].text for record in file.records)
    assert counted == {"red": 10, "green": 25, "blue": 3}
    repeated = Counter(record.id for record in file.records if record.id.startswith("b"))
    assert set(repeated.values()) == {2, 3}
    result = check_rows(file, ImageSource(str(tmp_path / "images"), places=file.places))
    assert len(result.good) == 38 and not result.problems


def test_a_resumed_run_takes_up_the_same_rows(tmp_path: Path) -> None:
    mixture = str(sources(tmp_path))
    recipe = load_recipe("tiny", {"finetune.global_batch_size": 8, "finetune.max_steps": 9}).finetune

    def steps(first: int) -> list[list[str]]:
        """The ids of each step's rows as a process that starts at step `first` sees them, read anew."""
        file = read_records(mixture)
        count = len(file.records)
        plan = BatchPlan(np.full(count, 9, np.int32), np.full(count, 2, np.int32), np.ones(count, np.int32), recipe, 1)
        found = []
        for number in range(first, plan.total_steps):
            rows = [index for micro in plan.step(number).ranks[0] for index in micro]
            found.append([file.records[index].id for index in rows])
        return found

    whole = steps(0)
    assert len(whole) == 9 and steps(5) == whole[5:]
    assert read_records(mixture).sha256 == read_records(mixture).sha256


def test_another_weight_is_another_data_set(tmp_path: Path) -> None:
    mixture = sources(tmp_path)
    before = read_records(str(mixture))
    mixture.write_text(mixture.read_text().replace("2.5", "1.5"))
    after = read_records(str(mixture))
    assert len(after.records) == 28 and after.sha256 != before.sha256


def test_a_bad_row_is_named_by_its_source(tmp_path: Path) -> None:
    mixture = sources(tmp_path)
    (tmp_path / "images/green.png").unlink()
    file = read_records(str(mixture))
    result = check_rows(file, ImageSource(str(tmp_path / "images"), places=file.places))
    assert {problem.file for problem in result.problems} == {str(tmp_path / "b.jsonl")}
    assert {problem.row for problem in result.problems} == set(range(10))
    assert COLOURS[1] not in {file.records[position].turns[1].text for position in result.good}


def test_what_is_no_mixture_for_training(tmp_path: Path) -> None:
    mixture = sources(tmp_path)
    mixture.write_text("name: x\nparts:\n- data: generated\n")
    with pytest.raises(SettingsError, match="filled by an expansion"):
        read_records(str(mixture))
    mixture.write_text("name: x\nparts:\n- {data: a.json, wieght: 2}\n")
    with pytest.raises(SettingsError, match="did you mean weight"):
        read_records(str(mixture))
    mixture.write_text("name: x\nparts:\n- {data: gone.json}\n")
    with pytest.raises((DataError, Exception), match=r"gone\.json"):
        read_records(str(mixture))
