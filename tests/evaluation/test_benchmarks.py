"""Reading every benchmark in the form it is published in, its figures, and its errors."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.errors import RowError, SettingsError
from llava.evaluation.benchmarks import BENCHMARKS, get_benchmark
from llava.evaluation.question_images import Images, blank

GOOD = '{"question_id": 1, "image": "a", "question": "q", "answer": "b"}\n'


def save(path: Path, value: Any) -> str:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_names_are_their_own_and_an_unknown_one_lists_them() -> None:
    names = [benchmark.name for benchmark in BENCHMARKS]
    assert len(set(names)) == len(names) == 24
    assert [get_benchmark(name).name for name in names] == names
    with pytest.raises(SettingsError, match="found 'vqa'; expected one of ai2d, captions, chartqa, custom"):
        get_benchmark("vqa")


def test_vqav2(tmp_path: Path) -> None:
    questions = {"questions": [{"image_id": 42, "question": "What color?", "question_id": 420001}]}
    golds = {
        "annotations": [
            {
                "question_id": 420001,
                "image_id": 42,
                "answer_type": "other",
                "multiple_choice_answer": "red",
                "answers": [{"answer": "red", "answer_id": k} for k in range(10)],
            }
        ]
    }
    uri = f"{save(tmp_path / 'q.json', questions)},{save(tmp_path / 'a.json', golds)}"
    [question] = get_benchmark("vqav2").read(uri)
    assert question.images == ("COCO_val2014_000000000042.jpg",)
    assert question.text == "What color?\nAnswer the question using a single word or phrase."
    assert (question.id, question.expected, question.kind) == ("420001", "red", "other")
    save(tmp_path / "a.json", {"annotations": [{"question_id": 7, "answers": ["x"] * 10}]})
    with pytest.raises(RowError, match=r"row 0: question_id: found '420001'; expected an id that is in"):
        get_benchmark("vqav2").read(uri)


def test_gqa_textvqa_vizwiz(tmp_path: Path) -> None:
    gqa = {"20": {"imageId": "n1", "question": "Is it?", "answer": "yes", "types": {"structural": "verify"}}}
    [question] = get_benchmark("gqa").read(save(tmp_path / "gqa.json", gqa))
    assert (question.images, question.kind) == (("n1.jpg",), "verify")
    text = {
        "data": [{"question_id": 5, "image_id": "abc", "question": "what brand?", "answers": ["x"] * 3 + ["nokia"] * 7}]
    }
    ocr = {"data": [{"image_id": "abc", "ocr_tokens": ["NOKIA", "3310"]}]}
    uri = save(tmp_path / "t.json", text)
    [question] = get_benchmark("textvqa").read(uri)
    assert question.text == "What brand?\nAnswer the question using a single word or phrase."
    assert question.expected == "nokia"
    [question] = get_benchmark("textvqa").read(f"{uri},{save(tmp_path / 'o.json', ocr)}")
    assert question.text.startswith("What brand?\nReference OCR token: NOKIA, 3310\nAnswer")
    viz = [{"image": "v.jpg", "question": "What is it?", "answers": [{"answer": "can"}] * 10, "answer_type": "other"}]
    [question] = get_benchmark("vizwiz").read(save(tmp_path / "v.json", viz))
    assert "respond with 'Unanswerable'.\nAnswer the question using a single word" in question.text


def test_scienceqa_takes_the_test_questions_with_a_image(tmp_path: Path) -> None:
    row = {
        "question": "Which?",
        "choices": ["rock", "air"],
        "answer": 1,
        "hint": "Look.",
        "image": "image.png",
        "split": "test",
        "subject": "natural science",
    }
    problems = {"1": row, "2": {**row, "image": None}, "3": {**row, "split": "train"}}
    uri = f"{save(tmp_path / 'p.json', problems)},{save(tmp_path / 's.json', {'test': ['1', '2'], 'train': ['3']})}"
    [question] = get_benchmark("scienceqa").read(uri)
    assert question.text == (
        "Context: Look.\nWhich?\nA. rock\nB. air\nAnswer with the option's letter from the given choices directly."
    )
    assert question.images == ("1/image.png",) and question.expected == "B"


def test_seed_takes_images_only(tmp_path: Path) -> None:
    row = {
        "question": "Who?",
        "choice_a": "1",
        "choice_b": "2",
        "choice_c": "3",
        "choice_d": "4",
        "answer": "C",
        "data_id": "9_1",
        "question_id": "7",
        "question_type_id": 2,
        "data_type": "image",
    }
    data = {"questions": [row, {**row, "data_type": "video"}], "question_type": {"Instance Identity": 2}}
    [question] = get_benchmark("seed").read(save(tmp_path / "seed.json", data))
    assert question.kind == "Instance Identity" and question.gold["options"] == {"A": "1", "B": "2", "C": "3", "D": "4"}


def test_pope_f1_is_the_mean_of_the_samplings(tmp_path: Path) -> None:
    pope = get_benchmark("pope")
    files = []
    for sampling in ("random", "popular"):
        rows = [
            {"question_id": k, "image": f"{k}.jpg", "text": "Is there a dog?", "label": "yes" if k % 2 else "no"}
            for k in range(8)
        ]
        files.append(save(tmp_path / f"coco_pope_{sampling}.json", lines(*rows)))
    questions = pope.read(",".join(files))
    assert len({question.id for question in questions}) == 16
    # random: all right; popular: always yes, so precision 1/2 and recall 1.
    said = ["yes" if q.kind == "popular" or q.expected == "yes" else "no" for q in questions]
    figures = pope.figures([pope.scored(q, a) for q, a in zip(questions, said, strict=True)], "llava-1.5")
    assert figures["f1_random"].value == 1 and figures["f1_popular"].value == pytest.approx(2 / 3)
    assert figures["f1"].value == pytest.approx(5 / 6)
    assert figures["f1"].low < 5 / 6 < figures["f1"].high
    assert figures["accuracy"].value == 0.75 and figures["said_yes"].value == 0.75
    with pytest.raises(RowError, match="label: found 'maybe'; expected yes or no"):
        pope.read(save(tmp_path / "x.json", lines({"question_id": 1, "image": "i", "text": "t", "label": "maybe"})))


def test_mme_wants_both_questions_of_a_image(tmp_path: Path) -> None:
    mme = get_benchmark("mme")
    rows = [
        {
            "question_id": f"{task}/{k}.png",
            "image": f"{task}/{k}.png",
            "question": "Is it? Please answer yes or no.",
            "answer": answer,
            "category": task,
        }
        for task in ("color", "code_reasoning")
        for k in range(2)
        for answer in ("Yes", "No")
    ]
    questions = mme.read(save(tmp_path / "mme.jsonl", lines(*rows)))
    assert questions[0].text == "Is it?\nAnswer the question using a single word or phrase."
    said = ["yes", "no", "yes", "yes", "yes", "no", "yes", "no"]
    scored = [mme.scored(q, a) for q, a in zip(questions, said, strict=True)]
    figures = mme.figures(scored, "llava-1.5")
    assert figures["perception"].value == pytest.approx(100 * (3 / 4 + 1 / 2))
    assert figures["cognition"].value == pytest.approx(200)
    assert 0 <= figures["perception"].low <= 125 <= figures["perception"].high <= 200


def test_mmbench_counts_a_question_when_all_rotations_are_right(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (10, 200, 30)).save(buffer, "PNG")
    image = base64.b64encode(buffer.getvalue()).decode()
    head = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage\n"
    rows = [("1", "cat", "dog", "A", image), ("1000001", "dog", "cat", "B", "1"), ("2", "cat", "dog", "B", image)]
    text = head + "".join(f"{i}\tWhat?\tnan\t{a}\t{b}\t\t\t{answer}\tanimals\t{p}\n" for i, a, b, answer, p in rows)
    bench = get_benchmark("mmbench")
    questions = bench.read(save(tmp_path / "m.tsv", text))
    assert questions[0].text.startswith("What?\nA. cat\nB. dog\nAnswer with")
    assert questions[0].images == questions[1].images
    assert Images("").load(questions[1].images[0]).getpixel((0, 0)) == (10, 200, 30)
    figures = bench.figures([bench.scored(q, a) for q, a in zip(questions, ["A", "A", "B"], strict=True)], "llava-1.5")
    assert figures["accuracy"].value == 0.5 and figures["accuracy"].n == 2
    assert figures["accuracy_vanilla"].value == pytest.approx(2 / 3)


def test_refcoco_and_captions(tmp_path: Path) -> None:
    row = {
        "question_id": 1,
        "image": "i.jpg",
        "caption": "the red one",
        "bbox": [20, 0, 80, 80],
        "width": 200,
        "height": 120,
    }
    [question] = get_benchmark("refcoco").read(save(tmp_path / "r.jsonl", lines(row)))
    assert (
        question.gold["box"] == pytest.approx((0.1, 0.2, 0.5, 0.6)) and question.expected == "[0.10, 0.20, 0.50, 0.60]"
    )
    with pytest.raises(RowError, match="bbox"):
        get_benchmark("refcoco").read(save(tmp_path / "r.jsonl", lines({**row, "bbox": "all"})))
    coco = {
        "images": [{"id": k, "file_name": f"{k}.jpg"} for k in range(3)],
        "annotations": [{"image_id": k, "caption": f"an image of {w}"} for k, w in enumerate(["cats", "dogs"])],
    }
    captions = get_benchmark("captions")
    questions = captions.read(save(tmp_path / "c.json", coco))
    assert [question.id for question in questions] == ["0", "1"]  # the third has no caption
    scored = [captions.scored(q, a) for q, a in zip(questions, ["an image of cats", "no idea"], strict=True)]
    figures = captions.figures(scored, "llava-1.5")
    assert figures["cider"].value == pytest.approx(5.0) and figures["words"].value == 3


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            '{"question_id": 1, "image": "a.jpg", "question": "q", "anser": "a"}',
            "row 0: anser: found 'a'; expected one of",
        ),
        ('{"question_id": 1, "image": "", "question": "q", "answer": "a"}', "row 0: image: found ''"),
        ('{"question_id": 1,', "row 0: (line): found"),
        ("[1]", "expected a JSON object"),
        ('{"question_id": 1, "image": "a", "question": "q", "answer": true}', "row 0: answer: found True"),
        (GOOD * 2, "row 1: question_id: found '1'; expected an id of its own"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, said: str) -> None:
    with pytest.raises(RowError) as caught:
        get_benchmark("custom").read(save(tmp_path / "w.jsonl", row))
    assert said in str(caught.value)


def test_a_blank_image_has_the_size_and_the_colour() -> None:
    made = blank(Image.effect_noise((30, 20), 50).convert("RGB"), (122, 116, 104))
    assert made.size == (30, 20) and made.getcolors() == [(600, (122, 116, 104))]
