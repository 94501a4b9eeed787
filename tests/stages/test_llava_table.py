"""The twelve of LLaVA-1.5's table, each from its own layout, to a number, a file to hand in, or a judge's score."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.evaluation.benchmark import OPTION_LETTER, SHORT_ANSWER
from llava.evaluation.benchmarks import get_benchmark
from llava.stages.evaluate import Inputs, Outputs, Settings, run
from tests.hub_model import HubModel

pytestmark = pytest.mark.slow


def write(path: Path, *rows: Any, lines: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows[0]))


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((24, 16), 60).convert("RGB").save(path, "JPEG")


def asked(key: Any, image: str, text: str, category: str = "default") -> dict[str, Any]:
    return {"question_id": key, "image": image, "text": text, "category": category}


def vqav2(folder: Path) -> None:
    row = asked(1, "COCO_test2015_000000000001.jpg", f"Is it red?{SHORT_ANSWER}")
    write(folder / "llava_vqav2_mscoco_test-dev2015.jsonl", row)
    picture(folder / "test2015" / row["image"])


def gqa(folder: Path) -> None:
    write(folder / "llava_gqa_testdev_balanced.jsonl", asked("1", "n1.jpg", f"Is it red?{SHORT_ANSWER}"))
    row = {"imageId": "n1", "question": "Is it red?", "answer": "no"}
    write(folder / "data/testdev_balanced_questions.json", {"1": row}, lines=False)
    picture(folder / "data/images/n1.jpg")


def vizwiz(folder: Path) -> None:
    write(folder / "llava_test.jsonl", asked(0, "VizWiz_test_00000000.jpg", f"What is this?{SHORT_ANSWER}"))
    picture(folder / "test/VizWiz_test_00000000.jpg")


def scienceqa(folder: Path) -> None:
    problem = {"question": "Which?", "choices": ["a", "b"], "answer": 1, "hint": "", "image": "image.png"}
    write(folder / "problems.json", {"5": problem}, lines=False)
    write(folder / "pid_splits.json", {"test": ["5"]}, lines=False)
    turns = [{"from": "human", "value": "<image>\nWhich?\nA. a\nB. b"}]
    write(folder / "llava_test_CQM-A.json", [{"id": "5", "image": "5/image.png", "conversations": turns}], lines=False)
    picture(folder / "images/test/5/image.png")


def textvqa(folder: Path) -> None:
    write(folder / "llava_textvqa_val_v051_ocr.jsonl", asked("a1", "a1.jpg", f"What brand?{SHORT_ANSWER}"))
    row = {"question": "what brand?", "image_id": "a1", "question_id": 7, "answers": ["x"] * 10}
    write(folder / "TextVQA_0.5.1_val.json", {"data": [row]}, lines=False)
    picture(folder / "train_images/a1.jpg")


def pope(folder: Path) -> None:
    rows = []
    for number, kind in enumerate(("adversarial", "popular", "random")):
        text, image = "Is there a dog in the image?", "COCO_val2014_000000000001.jpg"
        rows.append(asked(number, image, text + SHORT_ANSWER, kind))
        label = {"question_id": 1, "image": image, "text": text, "label": "yes"}
        write(folder / f"coco/coco_pope_{kind}.json", label)
    write(folder / "llava_pope_test.jsonl", *rows)
    picture(folder / "val2014/COCO_val2014_000000000001.jpg")


def mme(folder: Path) -> None:
    release = folder / "MME_Benchmark_release_version"
    picture(release / "color/1.jpg")
    two = [("Is it red?", "Yes"), ("Is it blue?", "No")]
    (release / "color/1.txt").write_text("".join(f"{text} Please answer yes or no.\t{yes}\n" for text, yes in two))
    write(folder / "llava_mme.jsonl", *(asked("color/1.jpg", "color/1.jpg", q + SHORT_ANSWER, "color") for q, _ in two))


def mmbench(file: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        folder.mkdir(parents=True)
        buffer = io.BytesIO()
        Image.effect_noise((24, 16), 60).convert("RGB").save(buffer, "JPEG")
        cells = {"index": "1", "question": "Which?", "hint": "", "A": "red", "B": "blue", "C": "", "D": ""}
        cells |= {"answer": "A", "category": "color", "image": base64.b64encode(buffer.getvalue()).decode()}
        (folder / file).write_text("\t".join(cells) + "\n" + "\t".join(cells.values()) + "\n")

    return make


def seed(folder: Path) -> None:
    row: dict[str, Any] = {f"choice_{letter}": letter for letter in "abcd"} | {
        "question": "Which?",
        "answer": "A",
        "data_id": "x",
    }
    row |= {"question_id": "1", "question_type_id": 5, "data_type": "image"}
    write(folder / "SEED-Bench.json", {"questions": [row], "question_type": {"Counting": 5}}, lines=False)
    text = f"Which?\nA. a\nB. b\nC. c\nD. d{OPTION_LETTER}"
    write(folder / "llava-seed-bench.jsonl", asked("1", "SEED-Bench-image/x", text, "image"))
    picture(folder / "SEED-Bench-image/x")


def mm_vet(folder: Path) -> None:
    row = {"imagename": "v1_0.png", "question": "What is it?", "answer": "x", "capability": ["rec"]}
    write(folder / "mm-vet.json", {"v1_0": row}, lines=False)
    write(folder / "llava-mm-vet.jsonl", asked(0, "v1_0.png", "What is it?", "conv"))
    picture(folder / "images/v1_0.png")


def llava_bench(folder: Path) -> None:
    write(folder / "questions.jsonl", asked(0, "001.jpg", "What is it?", "conv"))
    write(folder / "context.jsonl", {"id": "001", "image": "001.jpg", "caption": "A photo."})
    write(folder / "answers_gpt4.jsonl", {"question_id": 0, "text": "A dog."})
    picture(folder / "images/001.jpg")


TWELVE: dict[str, tuple[Callable[[Path], None], str]] = {
    "vqav2": (vqav2, "finetuned-vqav2-test-dev.json"),
    "gqa": (gqa, "accuracy"),
    "vizwiz": (vizwiz, "finetuned-vizwiz-test.json"),
    "scienceqa": (scienceqa, "accuracy"),
    "textvqa": (textvqa, "accuracy"),
    "pope": (pope, "f1"),
    "mme": (mme, "perception"),
    "mmbench": (mmbench("mmbench_dev_20230712.tsv"), "finetuned-mmbench.xlsx"),
    "mmbench-cn": (mmbench("mmbench_dev_cn_20231003.tsv"), "finetuned-mmbench-cn.xlsx"),
    "seed": (seed, "finetuned-seed-bench.jsonl"),
    "mm-vet": (mm_vet, "answers for the judge"),
    "llava-bench": (llava_bench, "answers for the judge"),
}


@pytest.mark.parametrize("name", list(TWELVE))
def test_from_the_layout_to_a_number_or_a_file(hub_model: HubModel, tmp_path: Path, name: str) -> None:
    make, what = TWELVE[name]
    folder, out = tmp_path / name, tmp_path / "out"
    make(folder)
    settings = Settings(benchmark=name, questions_uri=str(folder), max_new_tokens=4, blank_baseline=False)
    outputs = Outputs(predictions=f"{out}/predictions", report=f"{out}/report.html", metrics=f"{out}/metrics")
    metrics = run(settings, Inputs(model=str(hub_model.model), projector=None), outputs).metrics
    asked_of = {question.id: question.text for question in get_benchmark(name).read(str(folder))}
    lines = (out / "predictions/finetuned.jsonl").read_text().splitlines()
    rows = {row["id"]: row for row in map(json.loads, lines)}
    assert {key: row["question"] for key, row in rows.items()} == asked_of and metrics["questions_left_out"] == 0
    if what.startswith("finetuned-"):
        data = (out / "predictions" / what).read_bytes()
        assert (
            data[:2] == b"PK" if what.endswith(".xlsx") else data.count(b'"answer"') + data.count(b'"prediction"') == 1
        )
    elif what in ("accuracy", "f1", "perception"):
        assert 0 <= metrics[what] <= 200 and metrics[f"{what}_low"] <= metrics[what] <= metrics[f"{what}_high"]
    assert (out / "report.html").stat().st_size > 5000


FOLDERS = {"mme": "MME", "mmbench-cn": "mmbench_cn", "seed": "seed_bench", "llava-bench": "llava-bench-in-the-wild"}


def test_the_whole_table_in_one_run(hub_model: HubModel, tmp_path: Path) -> None:
    """As the folders of `eval.zip` are called: one model load, one report, a cell for each of the twelve."""
    for name, (make, _) in TWELVE.items():
        make(tmp_path / "eval" / FOLDERS.get(name, name))
    out = tmp_path / "out"
    settings = Settings(benchmark="llava-1.5", questions_uri=str(tmp_path / "eval"), max_new_tokens=4)
    outputs = Outputs(predictions=f"{out}/predictions", report=f"{out}/report.html", metrics=f"{out}/metrics")
    metrics = run(settings, Inputs(model=str(hub_model.model), projector=None), outputs).metrics
    assert metrics["benchmarks"] == 12 and metrics["questions"] == 15 and metrics["questions_left_out"] == 0
    table = (out / "report.html").read_text().split("<tbody>", 1)[1].split("</tbody>", 1)[0]
    [ours, _, *published] = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table.split("<tr>")[1:]]
    made_elsewhere = {"to hand in": 2, "judge": 2}
    assert {text: ours.count(text) for text in made_elsewhere} == made_elsewhere
    numbers = [cell for cell in ours[1:] if cell not in made_elsewhere]
    assert len(numbers) == 8 and all(0 <= float(cell) <= 200 for cell in numbers)
    assert [row[0] for row in published] == ["LLaVA-1.5 7B (published)", "LLaVA-1.5 13B (published)"]
    for name, (_, what) in TWELVE.items():
        if what.startswith("finetuned-"):
            assert (out / "predictions" / name / what).is_file()
