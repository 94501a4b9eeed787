"""Comparisons of finished predictions: expectations by hand, from files written here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llava.cli import main
from llava.errors import DataError, SettingsError
from llava.evaluation.comparing import compare, open_finished

ABOUT = {
    "contender": "finetuned", "title": "fine-tuned", "model": "m", "model_hash": "abc", "engine": "own generator",
    "questions_uri": "q", "images_uri": "", "questions": 0, "data_hash": "d", "created_unix": 0.0, "version": "0",
    "commit": "", "image": "",
}  # fmt: skip


def write(folder: Path, scores: list[float], *, benchmark: str = "custom", images: int = 1, **changed: Any) -> Path:
    """Predictions whose headline is the mean score; `images` questions share an image."""
    folder.mkdir(parents=True)
    rows: list[dict[str, Any]] = [
        {
            "id": f"q{k}", "kind": "k", "cluster": f"i{k // images}", "images": [], "question": f"what is {k}?",
            "expected": "yes", "answer": "yes" if score else "no", "scores": {"llava-1.5": score, "robust": score},
            "headline": {name: [[0, score, 1]] for name in ("llava-1.5", "robust")}, "of": "f",
        }
        for k, score in enumerate(scores)
    ]  # fmt: skip
    (folder / "finetuned.jsonl").write_text("".join(json.dumps(row | changed) + "\n" for row in rows))
    about = ABOUT | {"benchmark": benchmark, "headline": "accuracy", "weights": {"llava-1.5": [1.0], "robust": [1.0]}}
    (folder / "finetuned.about.json").write_text(json.dumps(about))
    return folder


def test_difference_wins_losses_and_correction(tmp_path: Path) -> None:
    base = [0.0] * 40 + [1.0] * 60
    better = [1.0] * 30 + [0.0] * 10 + [1.0] * 55 + [0.0] * 5  # 30 won, 5 lost
    same = [1.0, 0.0] + [0.0] * 38 + [1.0] * 59 + [0.0]  # 1 won, 1 lost
    places = [write(tmp_path / name, scores) for name, scores in (("base", base), ("better", better), ("same", same))]
    found = compare([item for place in places for item in open_finished(str(place), "finetuned")], "llava-1.5")
    one, two = found.compared
    assert (one.model, one.other, one.wins, one.losses, one.only_one) == ("better", "base", 30, 5, 0)
    assert one.difference.interval.value == pytest.approx(0.25) and one.difference.interval.n == 100
    # The variance of a mean of independent differences, by hand: (35/100 - 0.25^2) / 100.
    half = 1.96 * ((0.35 - 0.0625) / 100) ** 0.5
    assert one.difference.interval.low == pytest.approx(0.25 - half, abs=0.02)
    assert one.difference.interval.high == pytest.approx(0.25 + half, abs=0.02)
    # Two comparisons at once: the quantile of 97.5 % two-sided is 2.241.
    assert one.together.low == pytest.approx(0.25 - half * 2.241 / 1.96, abs=0.025)
    assert one.together.low > 0 and (two.wins, two.losses) == (1, 1)
    assert two.difference.interval.value == 0 and two.together.low < 0 < two.together.high
    # Holm: the smallest p twice, the largest as it is (never below the one before).
    assert one.p == pytest.approx(2 * one.difference.p) and two.p == pytest.approx(two.difference.p)


def test_questions_about_one_image_are_one(tmp_path: Path) -> None:
    """Ten questions an image that are all won or all lost tell as much as one an image."""
    won = [1.0 if image % 3 else 0.0 for image in range(30) for _ in range(10)]
    other = [1 - score for score in won]
    place = [write(tmp_path / "a", other, images=10), write(tmp_path / "b", won, images=10)]
    [many] = compare([item for p in place for item in open_finished(str(p), "finetuned")], "llava-1.5").compared
    place = [write(tmp_path / "c", other[::10]), write(tmp_path / "d", won[::10])]
    [few] = compare([item for p in place for item in open_finished(str(p), "finetuned")], "llava-1.5").compared
    assert many.difference.interval.low == pytest.approx(few.difference.interval.low, abs=1e-9)
    assert many.difference.interval.high == pytest.approx(few.difference.interval.high, abs=1e-9)


def test_a_headline_that_is_no_mean_is_compared_itself(tmp_path: Path) -> None:
    """F1 as a ratio: 2 hits / (2 hits + errors); by hand 2*3/(6+2) = 0.75 and 2*1/(2+4) = 1/3."""
    parts = {
        "a": [[2, 2], [2, 2], [2, 2], [0, 1], [0, 1], [0, 0]],
        "b": [[2, 2], [0, 1], [0, 1], [0, 1], [0, 1], [0, 0]],
    }
    for name, pairs in parts.items():
        write(tmp_path / name, [float(top > 0) for top, _ in pairs])
        file = tmp_path / name / "finetuned.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row, (top, bottom) in zip(rows, pairs, strict=True):
            row["headline"] = {p: [[0, top, bottom]] if bottom else [] for p in ("llava-1.5", "robust")}
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    finished = [item for name in "ba" for item in open_finished(str(tmp_path / name), "finetuned")]
    [found] = compare(finished, "llava-1.5").compared
    assert found.difference.interval.value == pytest.approx(0.75 - 1 / 3)


def test_a_history_compares_with_the_checkpoint_before(tmp_path: Path) -> None:
    for step in (100, 200, 300):
        write(
            tmp_path / f"run/step-{step}/predictions/pope", [float(k < step // 100) for k in range(5)], benchmark="pope"
        )
    finished = [
        item
        for step in (100, 200, 300)
        for item in open_finished(str(tmp_path / f"run/step-{step}/predictions"), "finetuned")
    ]
    found = compare(finished, "llava-1.5", successive=True)
    assert [(item.model, item.other) for item in found.compared] == [("step-200", "step-100"), ("step-300", "step-200")]
    assert len(compare(finished, "llava-1.5", all_pairs=True).compared) == 3
    assert found.keys == ["pope"] and [found.figures[label, "pope"].value for label in found.labels] == [0.2, 0.4, 0.6]


def test_what_does_not_pair_is_told(tmp_path: Path) -> None:
    first = open_finished(str(write(tmp_path / "a", [1.0, 0.0])), "finetuned")
    other = open_finished(str(write(tmp_path / "b", [1.0, 0.0], question="another")), "finetuned")
    with pytest.raises(DataError, match="question 'q0': question differs .*expected the same questions"):
        compare([*first, *other], "llava-1.5")
    with pytest.raises(SettingsError, match="are both called 'a'; expected LABEL=PLACE"):
        compare([*first, *open_finished(f"a={tmp_path / 'b'}", "finetuned")], "llava-1.5")
    elsewhere = open_finished(str(write(tmp_path / "c", [1.0], benchmark="gqa")), "finetuned")
    with pytest.raises(DataError, match="nothing to compare"):
        compare([*first, *elsewhere], "llava-1.5")
    with pytest.raises(DataError, match=r"no blank.jsonl in it"):
        open_finished(str(tmp_path / "a"), "blank")
    (tmp_path / "a/finetuned.about.json").unlink()
    with pytest.raises(DataError, match="finetuned.about.json is missing"):
        open_finished(str(tmp_path / "a"), "finetuned")


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a", [0.0] * 20)
    write(tmp_path / "b", [1.0] * 20)
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "out"), "--history"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "b - a" in shown and "+1.0000" in shown and "yes" in shown
    [row] = json.loads((tmp_path / "out/comparison.json").read_text())["differences"]
    assert (row["value"], row["low_together"], row["wins"], row["losses"]) == (1.0, 1.0, 20, 0)
    page = (tmp_path / "out/report.html").read_text()
    assert "what is 7?" in page and "over checkpoints" in page
