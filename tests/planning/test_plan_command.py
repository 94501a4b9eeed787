"""`llava plan`: a command a person can read and a script can parse, and rows of a file that are measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llava.config import load_recipe


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    from llava.cli import main

    try:
        main(["plan", *arguments])
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_command_prints_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--recipe", "llava-v1.5-7b", "--gpu", "h200", "--gpus", "8")
    assert code == 0
    for text in ("8 x h200", "ZeRO 1", "ZeRO 3", "optimiser steps", "5,198", "fits", "USD", "estimated text lengths"):
        assert text in out
    code, out, _ = run(capsys, "--gpu", "h200", "--json", "--price", "2", "--mfu", "0.5")
    figures = json.loads(out)
    assert figures["price"] == 2
    stage = figures["stages"][1]
    parts = [value for key, value in stage["memory"].items() if key != "total"]
    assert stage["memory"]["total"] == pytest.approx(sum(parts))
    assert set(stage["by_zero"]) == {"1", "2", "3"}


def test_the_command_ends_with_1_where_nothing_fits(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--gpu", "tiny", "--gpu-memory", "3", "--gpus", "1")
    assert code == 1
    assert "DOES NOT FIT" in out and "nothing that this project can do" in out
    code, out, _ = run(capsys, "--gpu", "h100", "--gpus", "1")
    assert code == 0 and "what fits, cheapest first" in out


@pytest.mark.parametrize(
    "arguments", [["--recipe", "llava-9"], ["--gpu", "abacus"], ["--overrides", '{"finetune.lr": 1}'], ["--mfu", "40"]]
)
def test_command_refuses_with_a_message(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert err.startswith("llava: ")
    assert "Traceback" not in err


def test_a_file_of_rows_is_measured(tiny_recipe: Path, tiny_world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--recipe", str(tiny_recipe), "--json", "--pretrain-data", str(tiny_world.pretrain_json)]
    code, out, err = run(capsys, *arguments, "--finetune-data", str(tiny_world.instruct_json))
    assert code == 0, err
    pretrain, finetune = json.loads(out)["stages"]
    assert pretrain["corpus"]["measured"] and finetune["corpus"]["measured"]
    assert pretrain["corpus"]["rows"] == 64
    assert pretrain["corpus"]["images"] == 1
    assert finetune["corpus"]["images"] == pytest.approx(7 / 8)
    assert 0 < pretrain["corpus"]["supervised"] < pretrain["corpus"]["text_tokens"] + 1 < 200


def test_at_most_2000_evenly_spaced_rows_are_measured_with_one_tokenizer_and_bad_ones_left_out(
    tiny_recipe: Path, tiny_world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3,999 rows, of which the longer half comes last; a row whose answer spells an end token, one with no answer."""
    from llava.data.labels import RowEncoder
    from llava.planning.measuring import measure

    texts = ["red"] * 2000 + ["red " * 20] * 1997 + ["</s>", ""]
    rows = [
        {"id": str(k), "conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": text}]}
        for k, text in enumerate(texts)
    ]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    looked_at: list[int] = []
    encode_all, made = RowEncoder.encode_all, RowEncoder.__init__
    encoders: list[object] = []

    def counted(self: RowEncoder, records: Any, *args: Any, **kwargs: Any) -> Any:
        looked_at.extend(record.index for record in records)
        return encode_all(self, records, *args, **kwargs)

    def noted(self: RowEncoder, *args: Any, **kwargs: Any) -> None:
        encoders.append(self)
        made(self, *args, **kwargs)

    monkeypatch.setattr(RowEncoder, "encode_all", counted)
    monkeypatch.setattr(RowEncoder, "__init__", noted)
    corpus, problems = measure(load_recipe(str(tiny_recipe)), "finetune", str(file))
    assert len(looked_at) == 2000 and (looked_at[0], looked_at[-1]) == (0, 3997)
    assert len(encoders) == 1, "an encoder copies its tokenizer"
    assert [problem.row for problem in problems] == [3998, 3997]  # what no stage can read, then what it cannot encode
    assert all(str(file) in str(problem) for problem in problems)
    assert corpus.rows == 3998 and corpus.images == 0
    short, long = (
        measure(load_recipe(str(tiny_recipe)), "finetune", one_row(tmp_path, text)) for text in texts[1999:2001]
    )
    assert corpus.supervised == pytest.approx((short[0].supervised + long[0].supervised) / 2, rel=0.01)


def one_row(folder: Path, text: str) -> str:
    path = folder / f"{len(text)}.json"
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": text}]
    path.write_text(json.dumps([{"id": "0", "conversations": turns}]))
    return str(path)


def test_a_bad_row_is_said_and_a_file_of_nothing_else_is_refused(
    tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = (one_row(tmp_path, text) for text in ("red", "</s>"))
    both = tmp_path / "both.json"
    both.write_text(json.dumps([*json.loads(Path(good).read_text()), *json.loads(Path(bad).read_text())]))
    code, _, err = run(capsys, "--recipe", str(tiny_recipe), "--json", "--finetune-data", str(both))
    assert code == 0 and f"note: {both}: 1 row cannot be used, the first: {both}" in err
    code, _, err = run(capsys, "--recipe", str(tiny_recipe), "--finetune-data", bad)
    assert code == 2 and f"{bad}: none of its 1 rows can be used" in err


@pytest.mark.slow
def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from llava.cli import main\n"
        "try: main(['plan', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
