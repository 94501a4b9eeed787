"""The gain over another model is that of the headline, whatever the headline is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llava.evaluation.benchmark import Benchmark, Scored
from llava.evaluation.benchmarks import get_benchmark
from llava.evaluation.summary import gain, metrics_of, summarise


def summaries(benchmark: Benchmark, questions_uri: str, answers: list[list[str]]) -> list[list[Scored]]:
    questions = benchmark.read(questions_uri)
    return [[benchmark.scored(q, said) for q, said in zip(questions, column, strict=True)] for column in answers]


def check(benchmark: Benchmark, questions_uri: str, ours: list[str], theirs: list[str]) -> None:
    made = [
        summarise(benchmark, name, name, scored, "llava-1.5")
        for name, scored in zip(("m", "blank"), summaries(benchmark, questions_uri, [ours, theirs]), strict=True)
    ]
    head = benchmark.headline
    expected = made[0].figures[head].value - made[1].figures[head].value
    assert expected > 0
    found = gain(benchmark, made[0], made[1], "llava-1.5")
    assert found.value == pytest.approx(expected) and found.low <= expected <= found.high
    metrics = metrics_of(benchmark, made, "llava-1.5")
    assert metrics["gain_over_blank"] == pytest.approx(metrics[head] - metrics[f"{head}_blank"])


def test_captions(tmp_path: Path) -> None:
    texts = ["a red dog runs on grass", "two cats sleep on a sofa", "a man rides a green horse", "blue boats at sea"]
    file = tmp_path / "captions.json"
    file.write_text(
        json.dumps(
            {
                "images": [{"id": k, "file_name": f"{k}.jpg"} for k in range(4)],
                "annotations": [{"image_id": k, "caption": text} for k, text in enumerate(texts)],
            }
        )
    )
    # Words shuffled: every word is a reference's, which the score of one answer counts, and no n-gram is.
    check(get_benchmark("captions"), str(file), texts, [" ".join(reversed(text.split())) for text in texts])


def test_mme_counts_accuracy_plus(tmp_path: Path) -> None:
    file = tmp_path / "mme.jsonl"
    rows = [
        {"question_id": f"{k}", "image": f"count/{k}.jpg", "question": f"q{j}", "answer": "Yes" if j else "No"}
        for k in range(6)
        for j in range(2)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    # Always yes: accuracy 50 %, accuracy+ 0; ours: half of the images wholly right: 50 % and 50 %.
    ours = [
        ("Yes" if row["answer"] == "Yes" else "No") if k < 6 else ("No" if row["answer"] == "Yes" else "Yes")
        for k, row in enumerate(rows)
    ]
    check(get_benchmark("mme"), str(file), ours, ["Yes"] * 12)
    scored = summaries(get_benchmark("mme"), str(file), [ours, ["Yes"] * 12])
    benchmark = get_benchmark("mme")
    assert benchmark.figures(scored[0], "llava-1.5")["perception"].value == pytest.approx(100)
    assert benchmark.figures(scored[1], "llava-1.5")["perception"].value == pytest.approx(50)


def test_pope_f1(tmp_path: Path) -> None:
    rows = [
        {"question_id": k, "image": f"{k}.jpg", "text": "dog?", "label": "yes" if k % 2 else "no"} for k in range(8)
    ]
    files = []
    for name in ("random", "popular"):
        files.append(tmp_path / f"coco_pope_{name}.json")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    uri = ",".join(str(file) for file in files)
    right = ["Yes" if k % 2 else "No" for k in range(8)] * 2
    # Half of the answers right either way, but always "no" has an F1 of 0.
    check(get_benchmark("pope"), uri, right, ["No"] * 16)
    [always_yes] = summaries(get_benchmark("pope"), uri, [["Yes"] * 16])
    assert get_benchmark("pope").figures(always_yes, "llava-1.5")["f1"].value == pytest.approx(2 / 3)


def test_mmbench_circular(tmp_path: Path) -> None:
    file = tmp_path / "mmbench.tsv"
    lines = ["index\tquestion\thint\tA\tB\tanswer\tcategory\timage"]
    for k in range(1, 5):
        lines += [
            f"{k}\tq{k}\tnan\tleft\tright\tA\tc\taGVsbG8=",
            f"{k + 1_000_000}\tq{k}\tnan\tright\tleft\tB\tc\taGVsbG8=",
        ]
    file.write_text("\n".join(lines) + "\n")
    # Always A: half of all answers are right, no question is.
    check(get_benchmark("mmbench"), str(file), ["A", "B"] * 4, ["A"] * 8)
