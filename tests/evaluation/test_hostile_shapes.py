"""Every value of a question file replaced by something hostile: a reader names file and place, and never falls over."""

from __future__ import annotations

import base64
import copy
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.errors import UserError
from llava.evaluation.benchmarks import get_benchmark

HOSTILE: tuple[Any, ...] = ([], {}, [[]], [None], [{}], {"a": []}, None, True, "", "\x00", -1, 2**62, 1e300, [1, "a"])
TEN = [{"answer": "red"}] * 10
OPTIONS = {f"choice_{letter}": letter for letter in "abcd"}
ROW = {"question_id": 1, "image": "a.jpg", "text": "Q?\nAnswer.", "category": "random"}

# Files of each benchmark: JSON, or JSON lines where the value is a tuple.
FILES: dict[str, dict[str, Any]] = {
    "vqav2": {
        "v2_OpenEnded_mscoco_val2014_questions.json": {
            "questions": [{"image_id": 1, "question": "Q?", "question_id": 10, "data_subtype": "val2014"}]
        },
        "v2_mscoco_val2014_annotations.json": {
            "annotations": [{"question_id": 10, "answers": TEN, "answer_type": "other"}]
        },
    },
    "gqa": {
        "llava_gqa_testdev_balanced.jsonl": (ROW,),
        "testdev_balanced_questions.json": {
            "1": {"imageId": "a", "question": "Q?", "answer": "no", "types": {"structural": "verify"}}
        },
    },
    "textvqa": {
        "TextVQA_0.5.1_val.json": {
            "data": [{"question": "q", "image_id": "a", "question_id": 1, "answers": ["x"] * 10}]
        },
        "TextVQA_Rosetta_OCR_v0.2_val.json": {"data": [{"image_id": "a", "ocr_tokens": ["x", "y"]}]},
    },
    "vizwiz": {"val.json": [{"image": "a.jpg", "question": "Q?", "answers": TEN, "answer_type": "other"}]},
    "scienceqa": {
        "problems.json": {"1": {"question": "Q?", "choices": ["a", "b"], "answer": 1, "hint": "h", "image": "i.png"}},
        "pid_splits.json": {"test": ["1"]},
        "llava_test_CQM-A.json": [{"id": "1", "conversations": [{"from": "human", "value": "<image>\nQ?"}]}],
    },
    "pope": {
        f"coco_pope_{name}.json": ({"question_id": 1, "image": "a.jpg", "text": "Q?", "label": "yes"},)
        for name in ("random", "popular", "adversarial")
    },
    "seed": {
        "SEED-Bench.json": {
            "questions": [
                {"question": "Q?", **OPTIONS, "answer": "A", "data_id": "x", "question_id": "1", "question_type_id": 5}
            ],
            "question_type": {"Counting": 5},
        }
    },
    "mm-vet": {
        "mm-vet.json": {"v1_1": {"imagename": "a.png", "question": "Q?", "answer": "x", "capability": ["ocr"]}},
        "llava-mm-vet.jsonl": (ROW,),
    },
    "llava-bench": {
        "questions.jsonl": (ROW,),
        "context.jsonl": ({"id": "1", "image": "a.jpg", "caption": "c"},),
        "answers_gpt4.jsonl": ({"question_id": 1, "text": "t"},),
    },
    "captions": {
        "captions_val2014.json": {
            "images": [{"id": 1, "file_name": "a.jpg", "domain": "near"}],
            "annotations": [{"image_id": 1, "caption": "a dog"}],
        }
    },
    "flickr30k": {
        "dataset_flickr30k.json": {
            "images": [{"split": "test", "filename": "a.jpg", "imgid": 1, "sentences": [{"raw": "a dog"}]}]
        }
    },
    "chartqa": {
        f"test_{kind}.json": [{"imgname": "a.png", "query": "Q?", "label": "3"}] for kind in ("human", "augmented")
    },
    "docvqa": {
        "val_v1.0.json": {
            "data": [
                {"questionId": 1, "question": "Q?", "image": "a.png", "answers": ["x"], "question_types": ["form"]}
            ]
        }
    },
    "ocrbench": {
        "OCRBench.json": [
            {"dataset_name": "IIIT5K", "image_path": "a.png", "question": "Q?", "answers": ["x"], "type": "Regular"}
        ]
    },
    "hallusionbench": {
        "HallusionBench.json": [
            {
                "category": "VD", "subcategory": "chart", "set_id": "0", "figure_id": "1", "question_id": "0",
                "question": "Q?", "gt_answer": "1", "filename": "./VD/chart/0_1.png",
            }
        ]
    },
}  # fmt: skip


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, child in items:
        yield from paths(child, (*at, key))


def replaced(value: Any, at: tuple[Any, ...], by: Any, *, drop: bool) -> Any:
    if not at:
        return by
    made = copy.deepcopy(list(value) if isinstance(value, tuple) else value)
    place = made
    for key in at[:-1]:
        place = place[key]
    if drop:
        del place[at[-1]]
    else:
        place[at[-1]] = by
    return made


def write(folder: Path, name: str, value: Any, *, lines: bool) -> None:
    rows = value if lines and isinstance(value, (list, tuple)) else [value]
    text = "".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(value)
    (folder / name).write_text(text)


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_shape_makes_a_reader_fall_over(tmp_path: Path, name: str) -> None:
    files, benchmark = FILES[name], get_benchmark(name)
    for file, value in files.items():
        write(tmp_path, file, value, lines=isinstance(value, tuple))
    assert benchmark.read(str(tmp_path))
    said: list[str] = []
    for file, value in files.items():
        lines = isinstance(value, tuple)
        for at in paths(value):
            for by in HOSTILE if not lines or at else ():
                for drop in (False, True) if at and by == [] else (False,):
                    write(tmp_path, file, replaced(value, at, by, drop=drop), lines=lines)
                    try:
                        questions = benchmark.read(str(tmp_path))
                    except UserError as error:
                        said.append(str(error))
                    else:
                        assert all(isinstance(q.id, str) and isinstance(q.text, str) for q in questions)
        write(tmp_path, file, value, lines=lines)
    assert len(said) > 20 and all(str(tmp_path) in text for text in said)


def picture() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()


TABLES = {
    "mmstar": ("MMStar.tsv", {"A": "a", "B": "b", "answer": "B", "category": "math"}),
    "ai2d": ("AI2D_TEST.tsv", {"A": "a", "B": "b", "answer": "B", "category": "c"}),
    "mmmu": ("MMMU_DEV_VAL.tsv", {"A": "a", "B": "b", "answer": "B", "category": "Art", "split": "validation"}),
    "mmbench": ("MMBench_DEV_EN.tsv", {"A": "a", "B": "b", "answer": "B", "category": "c"}),
    "chartqa": ("ChartQA_TEST.tsv", {"answer": "['3']", "split": "human"}),
    "docvqa": ("DocVQA_VAL.tsv", {"answer": '["a", "b"]'}),
    "ocrbench": ("OCRBench.tsv", {"answer": "['a']", "category": "Regular"}),
    "hallusionbench": ("HallusionBench.tsv", {"answer": "Yes", "category": "VD"}),
}


@pytest.mark.parametrize("name", sorted(TABLES))
def test_no_cell_makes_a_table_fall_over(tmp_path: Path, name: str) -> None:
    file, own = TABLES[name]
    key = "VD_chart_0_1_0" if name == "hallusionbench" else "7"
    good = {"index": key, "question": "Q?", "image": picture(), **own}

    def read(row: dict[str, str]) -> int:
        (tmp_path / file).write_text("\t".join(row) + "\n" + "\t".join(row.values()) + "\n")
        return len(get_benchmark(name).read(str(tmp_path)))

    assert read(good) == 1
    said: list[str] = []
    for column in good:
        for cell in (
            "",
            "nan",
            "[",
            "[]",
            "[" * 5000 + "]" * 5000,
            "[{}]",
            "9" * 5000,
            "a\0b",
            '"',
            "__import__('os')",
        ):
            try:
                read({**good, column: cell})
            except UserError as error:
                said.append(str(error))
    assert len(said) > 5 and all(file in text for text in said)
