"""Every benchmark of LLaVA-1.5's table from the folders people have: prompts, labels, images, and what is missing.

The question lines are in exactly the form of `playground/data/eval` (its `eval.zip`), a few of them taken from there.
"""

from __future__ import annotations

import base64
import io
import json
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from llava import cli
from llava.errors import DataError, RowError
from llava.evaluation.benchmark import Question
from llava.evaluation.benchmarks import get_benchmark

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."


def write(path: Path, *rows: Any) -> Path:
    """One value as JSON, or JSON lines where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.suffix == ".jsonl" or path.name.startswith("coco_pope")
    text = "".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows[0])
    path.write_text(text)
    return path


def image(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (200, 30, 10)).save(path)
    return str(path)


def read(name: str, folder: Path) -> list[Question]:
    """The questions, whose images must be where the benchmark says they are."""
    benchmark = get_benchmark(name)
    questions = benchmark.read(str(folder))
    root = Path(benchmark.images_uri(str(folder)))
    for question in questions:
        for reference in question.images:
            assert reference.startswith("data:") or (root / reference).is_file(), (root, reference)
    return questions


def test_vqav2_test_dev_becomes_the_servers_file(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "question_id": 262144000,
        "image": "COCO_test2015_000000262144.jpg",
        "text": f"Is the ball flying towards the batter?{SHORT}",
        "category": "default",
    }
    write(tmp_path / "llava_vqav2_mscoco_test-dev2015.jsonl", row)
    write(tmp_path / "llava_vqav2_mscoco_test2015.jsonl", {**row, "question_id": 1}, row)
    image(tmp_path / "test2015" / row["image"])
    [question] = read("vqav2", tmp_path)
    assert question.text == row["text"] and not question.known
    made = get_benchmark("vqav2").submission(str(tmp_path), [question], {"262144000": "Yes, the ball."})
    assert made is not None
    # The converter's: EvalAI's normal form, every id of test2015, an empty answer where nothing was asked.
    assert json.loads(made.data) == [{"question_id": 1, "answer": ""}, {"question_id": 262144000, "answer": "yes ball"}]
    assert (made.rows, made.empty) == (2, 1)


def test_vqav2_validation(tmp_path: Path) -> None:
    asked = {"questions": [{"image_id": 42, "question": "What color?", "question_id": 420001}]}
    gold = {"question_id": 420001, "answers": [{"answer": "red"}] * 10, "answer_type": "other"}
    write(tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json", asked)
    write(tmp_path / "v2_mscoco_val2014_annotations.json", {"annotations": [gold]})
    image(tmp_path / "val2014/COCO_val2014_000000000042.jpg")
    (tmp_path / "test2015").mkdir()
    [question] = read("vqav2", tmp_path)
    assert question.known and get_benchmark("vqav2").submission(str(tmp_path), [question], {}) is None
    write(tmp_path / "v2_mscoco_val2014_annotations.json", {"annotations": [{**gold, "answers": ["red"] * 9}]})
    with pytest.raises(RowError, match="row 0: answers: found '9 answers'; expected the ten answers"):
        read("vqav2", tmp_path)


def test_gqa(tmp_path: Path) -> None:
    row = {"question_id": "201307251", "image": "n161313.jpg", "text": f"Is it overcast?{SHORT}", "category": "default"}
    write(tmp_path / "llava_gqa_testdev_balanced.jsonl", row)
    with pytest.raises(DataError) as caught:
        read("gqa", tmp_path)
    assert "missing data/testdev_balanced_questions.json (from questions1.2.zip, https://cs.stanford.edu" in str(
        caught.value
    )
    official = {"imageId": "n161313", "question": "Is it overcast?", "answer": "no", "types": {"structural": "verify"}}
    write(tmp_path / "data/testdev_balanced_questions.json", {"201307251": official})
    image(tmp_path / "data/images/n161313.jpg")
    [question] = read("gqa", tmp_path)
    assert (question.text, question.expected, question.kind) == (row["text"], "no", "verify")
    (tmp_path / "llava_gqa_testdev_balanced.jsonl").unlink()
    assert [item.text for item in read("gqa", tmp_path)] == [row["text"]]
    write(tmp_path / "llava_gqa_testdev_balanced.jsonl", {**row, "question_id": "7"})
    with pytest.raises(RowError, match="row 0: question_id: found '7'; expected an id that is in"):
        read("gqa", tmp_path)


def test_vizwiz(tmp_path: Path) -> None:
    text = f"What is this? \nWhen the provided information is insufficient, respond with 'Unanswerable'.{SHORT}"
    name = "VizWiz_test_00000007.jpg"
    write(tmp_path / "llava_test.jsonl", {"question_id": 7, "image": name, "text": text, "category": "default"})
    image(tmp_path / "test" / name)
    [question] = read("vizwiz", tmp_path)
    made = get_benchmark("vizwiz").submission(str(tmp_path), [question], {name: "Unanswerable."})
    assert made is not None and json.loads(made.data) == [{"image": name, "answer": "unanswerable"}]
    (tmp_path / "llava_test.jsonl").unlink()
    write(tmp_path / "test.json", [{"image": name, "question": "What is this? "}])
    assert [(item.id, item.text, item.known) for item in read("vizwiz", tmp_path)] == [(name, text, False)]


def test_textvqa(tmp_path: Path) -> None:
    prompt = f"What is the brand of this camera?\nReference OCR token: DAKOTA, DIGITAL, Single-Use{SHORT}"
    asked = {"question_id": "003a8ae2ef43b901", "image": "003a8ae2ef43b901.jpg", "text": prompt, "category": "default"}
    gold = {
        "question": "what is the brand of this camera?",
        "image_id": "003a8ae2ef43b901",
        "question_id": 34602,
        "answers": ["dakota"] * 6 + ["dakota digital"] * 4,
    }
    write(tmp_path / "llava_textvqa_val_v051_ocr.jsonl", asked)
    write(tmp_path / "TextVQA_0.5.1_val.json", {"data": [gold]})
    image(tmp_path / "train_images/003a8ae2ef43b901.jpg")
    [question] = read("textvqa", tmp_path)
    assert (question.id, question.text) == ("34602", prompt)
    # The same prompt from the official files alone.
    (tmp_path / "llava_textvqa_val_v051_ocr.jsonl").unlink()
    ocr = {"image_id": "003a8ae2ef43b901", "ocr_tokens": ["DAKOTA", "DIGITAL", "Single-Use"]}
    write(tmp_path / "TextVQA_Rosetta_OCR_v0.2_val.json", {"data": [ocr]})
    assert [item.text for item in read("textvqa", tmp_path)] == [prompt]


def test_scienceqa(tmp_path: Path) -> None:
    choices = ["bilberry", "mushroom"]
    hint = "Below is a food web from a tundra ecosystem in Nunavut, a territory in Northern Canada."
    which = "Which of these organisms contains matter that was once part of the lichen?"
    problem = {"question": which, "choices": choices, "answer": 1, "hint": hint, "image": "image.png", "split": "test"}
    colony = {
        **problem,
        "question": "What is the name of the colony shown?",
        "hint": "",
        "choices": ["Maryland", "Ohio"],
    }
    write(tmp_path / "problems.json", {"23": problem, "11": colony, "4": {**problem, "image": None}})
    write(tmp_path / "pid_splits.json", {"test": ["4", "11", "23"]})
    for key in ("11", "23"):
        image(tmp_path / f"images/test/{key}/image.png")
    value = f"<image>\nContext: {hint}\n{which}\nA. bilberry\nB. mushroom"
    other = "<image>\nWhat is the name of the colony shown?\nA. Maryland\nB. Ohio"
    rows = [
        {"id": key, "image": f"{key}/image.png", "conversations": [{"from": "human", "value": text}]}
        for key, text in (("11", other), ("23", value))
    ]
    official = [item.text for item in read("scienceqa", tmp_path)]
    write(tmp_path / "llava_test_CQM-A.json", rows)
    joined = read("scienceqa", tmp_path)
    assert (
        official
        == [item.text for item in joined]
        == [text.removeprefix("<image>\n") + LETTER for text in (other, value)]
    )
    assert [item.expected for item in joined] == ["B", "B"] and get_benchmark("scienceqa").max_new_tokens == 1024


def test_pope(tmp_path: Path) -> None:
    asked, labels = [], {"random": [], "popular": [], "adversarial": []}  # type: ignore[var-annotated]
    for number, sampling in enumerate(labels):
        for thing, label in (("a snowboard", "yes"), ("an umbrella", "no")):
            picture = f"COCO_val2014_00000031019{number}.jpg"
            text = f"Is there {thing} in the image?"
            asked.append({"question_id": len(asked) + 1, "image": picture, "text": text + SHORT, "category": sampling})
            labels[sampling].append(
                {"question_id": len(labels[sampling]) + 1, "image": picture, "text": text, "label": label}
            )
        image(tmp_path / "val2014" / picture)
        write(tmp_path / f"coco/coco_pope_{sampling}.json", *labels[sampling])
    own = read("pope", tmp_path)
    write(tmp_path / "llava_pope_test.jsonl", *asked)
    joined = read("pope", tmp_path)
    assert {(q.text, q.expected, q.kind) for q in own} == {(q.text, q.expected, q.kind) for q in joined}
    assert [q.text for q in joined] == [row["text"] for row in asked] and len({q.id for q in joined}) == 6
    write(tmp_path / "coco/coco_pope_random.json", *reversed(labels["random"]))
    with pytest.raises(RowError, match="coco_pope_random.json: row 0"):
        read("pope", tmp_path)


def mme(tmp_path: Path) -> Path:
    release = tmp_path / "MME_Benchmark_release_version"
    image(release / "color/000000000285.jpg")
    image(release / "artwork/images/10002.jpg")
    two = "Is there a red coat? Please answer yes or no.\tYes\nIs there a blue coat?  Please answer yes or no.\tNo\n"
    (release / "color/000000000285.txt").write_text(two)
    (release / "artwork/questions_answers_YN").mkdir()
    (release / "artwork/questions_answers_YN/10002.txt").write_text(two.replace("coat", "frame"))
    image(release / "existence/1.jpg")
    (release / "existence/1.txt").write_text(two.replace("coat", "dog"))
    return release


def test_mme(tmp_path: Path) -> None:
    release = mme(tmp_path)
    own = read("mme", tmp_path)
    assert [q.text for q in own if q.kind == "color"] == [f"Is there a {c} coat?{SHORT}" for c in ("red", "blue")]
    assert {q.text for q in read("mme", release)} == {q.text for q in own}
    rows = [
        {"question_id": q.images[0], "image": q.images[0], "text": q.text, "category": q.kind} for q in reversed(own)
    ]
    write(tmp_path / "llava_mme.jsonl", *rows)
    joined = read("mme", tmp_path)
    assert {(q.id, q.expected) for q in joined} == {(q.id, q.expected) for q in own} and len(joined) == 6
    (release / "color/000000000285.txt").write_text("Is there a red coat? Please answer yes or no.\tYes\n")
    with pytest.raises(RowError, match=r"llava_mme.jsonl: row \d: text: found 'Is there a blue coat\?'"):
        read("mme", tmp_path)
    (tmp_path / "llava_mme.jsonl").unlink()
    with pytest.raises(
        DataError, match=r"without their two questions: color/000000000285.jpg \(1\); expected two each"
    ):
        read("mme", tmp_path)
    (release / "color/000000000285.txt").write_text("Is there a red coat? Perhaps.\n")
    with pytest.raises(RowError, match="expected question, tab, Yes or No"):
        read("mme", tmp_path)


def mmbench(path: Path, *, answers: bool, question: str = "Which one?") -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, "JPEG")
    picture = base64.b64encode(buffer.getvalue()).decode()
    columns = ["index", "question", "hint", "A", "B", "C", "D", *(["answer"] if answers else []), "category", "image"]
    columns += ["source", "l2-category", "comment", "split"]
    full: dict[str, Any] = {"question": question, "A": "red", "B": "blue", "category": "color", "answer": "A"}
    full |= {"image": picture, "source": "s", "l2-category": "x", "comment": "nan", "split": "dev", "hint": "nan"}
    rows = [
        {**full, "index": 241, "hint": "Look\there".replace("\t", " ")},
        {**full, "index": 1000241, "C": "nan", "D": "green"},
    ]
    lines = ["\t".join(columns)] + ["\t".join(str(row.get(name, "")) for name in columns) for row in rows]
    path.write_text("\n".join(lines) + "\n")


def cells(data: bytes) -> list[list[str]]:
    """The texts of a workbook's sheet."""
    space = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    sheet = zipfile.ZipFile(io.BytesIO(data)).read("xl/worksheets/sheet1.xml")
    rows = ElementTree.fromstring(sheet).iter(f"{space}row")
    return [["".join(cell.itertext()) for cell in row.iter(f"{space}c")] for row in rows]


@pytest.mark.parametrize(
    ("name", "file", "suffix"),
    [
        ("mmbench", "mmbench_dev_20230712.tsv", LETTER),
        ("mmbench-cn", "mmbench_dev_cn_20231003.tsv", "\n请直接回答选项字母。"),
    ],
)
def test_mmbench_and_its_workbook(tmp_path: Path, name: str, file: str, suffix: str) -> None:
    mmbench(tmp_path / file, answers=True)
    first, second = read(name, tmp_path)
    assert first.text == f"Look here\nWhich one?\nA. red\nB. blue{suffix}"
    assert second.text == f"Which one?\nA. red\nB. blue\nD. green{suffix}"  # no letter moves
    assert get_benchmark(name).score(second, "D", "llava-1.5") == 0 and second.cluster == first.cluster
    made = get_benchmark(name).submission(str(tmp_path), [first, second], {"241": "A", "1000241": "D\x01"})
    assert made is not None and made.name == f"{name}.xlsx"
    header, *rows = cells(made.data)
    assert header == ["index", "question", "A", "B", "C", "D", "prediction", "answer", "split"]
    assert rows[0] == ["241", "Which one?", "red", "blue", "A", "A", "dev"]
    assert rows[1] == ["1000241", "Which one?", "red", "blue", "green", "D", "A", "dev"]


def test_mmbench_test_has_no_answers_and_is_handed_in(tmp_path: Path) -> None:
    mmbench(tmp_path / "mmbench_test_en_20231003.tsv", answers=False)
    questions = read("mmbench", tmp_path)
    assert not any(question.known for question in questions)
    made = get_benchmark("mmbench").submission(str(tmp_path), questions, {"241": "B"})
    assert made is not None and made.empty == 1 and "answer" not in cells(made.data)[0]


def test_captions_in_karpathys_and_nocaps_form(tmp_path: Path) -> None:
    flickr = {"images": [
        {"imgid": 0, "filename": "1.jpg", "split": "test", "sentences": [{"raw": "A dog ."}, {"raw": "Two dogs ."}]},
        {"imgid": 1, "filename": "2.jpg", "split": "train", "sentences": [{"raw": "A cat ."}]},
    ]}  # fmt: skip
    write(tmp_path / "dataset_flickr30k.json", flickr)
    image(tmp_path / "flickr30k-images/1.jpg")
    [question] = read("flickr30k", tmp_path)
    assert question.gold["captions"] == ["A dog .", "Two dogs ."]
    nocaps = {
        "images": [{"id": 0, "file_name": "a.jpg", "domain": "near-domain"}],
        "annotations": [{"image_id": 0, "caption": "x"}],
    }
    write(tmp_path / "nocaps_val_4500_captions.json", nocaps)
    image(tmp_path / "images/a.jpg")
    assert [item.kind for item in read("nocaps", tmp_path)] == ["near-domain"]


def test_show_prompt_prints_the_question_file_character_by_character(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"What is this? \nWhen the provided information is insufficient, respond with 'Unanswerable'.{SHORT}"
    rows: list[dict[str, Any]] = [
        {"question_id": k, "image": f"{k}.jpg", "text": text.replace("this", str(k)), "category": "x"} for k in range(3)
    ]
    write(tmp_path / "llava_test.jsonl", *rows)
    show = ["evaluate", "show-prompt", "--benchmark", "vizwiz", "--questions-uri", str(tmp_path)]
    with pytest.raises(SystemExit) as done:
        cli.main([*show, "--limit", "3", "--json"])
    assert done.value.code in (0, None)
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in shown] == [row["text"] for row in rows]
    with pytest.raises(SystemExit):
        cli.main([*show, "--question", "1.jpg"])
    assert capsys.readouterr().out == rows[1]["text"] + "\n"
    with pytest.raises(SystemExit):
        cli.main([*show, "--template", "v1"])
    # The whole prompt, as `conv_vicuna_v1` and `model_vqa_loader.py` of haotian-liu/LLaVA put it together.
    system = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    )
    assert capsys.readouterr().out == f"{system} USER: <image>\n{rows[0]['text']} ASSISTANT:\n"
    with pytest.raises(SystemExit) as failed:
        cli.main([*show, "--question", "9"])
    assert failed.value.code == 2 and "found '9'; expected one of the 3 ids" in capsys.readouterr().err
