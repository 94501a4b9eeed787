"""`llava expand plan`, `export-batch`, `import-batch` and the stage, from the command line to the rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llava.cli import main
from llava.expansion.teachers.offline import reply_to


def llava(*arguments: object) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["expand", *map(str, arguments)])
    assert not stop.value.code


def test_a_plan_is_printed(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    llava(
        "plan", "--annotations-uri", world / "annotations", "--teacher-model", "gpt-4o-mini",
        "--tokens-per-minute", 100_000, "--local-tokens-per-second", 100, "--local-price-per-hour", 2,
    )  # fmt: skip
    text = capsys.readouterr().out
    assert "60 images, 300 captions" in text and "conversation           60          0" in text
    assert "online, prompt cache" in text and "batch file" in text and "time online at these rates" in text
    assert "time with your own teacher at 100 output tokens/s" in text and "for the machine" in text


def test_a_plan_without_a_price_says_which_there_are(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    llava("plan", "--annotations-uri", world / "annotations", "--teacher-model", "nobody")
    assert "'nobody' is not in the price table (offline-teacher-1, gpt-" in capsys.readouterr().out


def test_batches_from_export_to_rows_without_a_request(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    common = ["--annotations-uri", world / "annotations", "--teacher-model", "m", "--ledger-uri", tmp_path / "ledger"]
    llava("export-batch", *common, "--to", tmp_path / "batch")
    answers = tmp_path / "answers.jsonl"
    with answers.open("w") as file:
        for line in (tmp_path / "batch/requests-00000.jsonl").read_text().splitlines():
            request = json.loads(line)
            choice = {"message": {"content": reply_to(request["body"])}, "finish_reason": "stop"}
            body = {"choices": [choice], "model": "m-1", "usage": {"prompt_tokens": 9, "completion_tokens": 9}}
            answer = {"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}}
            file.write(json.dumps(answer) + "\n")
    llava("import-batch", *common, "--answers", answers)
    assert "180 answered" in (text := capsys.readouterr().out) and "0 replies still missing" in text
    # Nothing listens at that endpoint: every reply must come from the ledger.
    llava(*common, "--teacher", "openai", "--teacher-endpoint", "http://127.0.0.1:9/v1", "--out", tmp_path / "out")
    rows = json.loads((tmp_path / "out/instruct_data.json").read_text())
    assert len(rows) == 180


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan"], "llava expand plan: annotations_uri: missing"),
        (["plan", "--annotations-uri", "x", "--limit", "-3"], "llava expand plan: limit: found -3"),
        (["export-batch", "--annotations-uri", "x", "--to", "y"], "export-batch: --teacher-model is missing"),
        (
            ["import-batch", "--annotations-uri", "x", "--answers", "y", "--teacher-model", "m"],
            "import-batch: --ledger-uri is missing",
        ),
    ],
)
def test_flags_are_checked_as_the_stage_checks_them(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["expand", *arguments])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_bad_input_is_a_message_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["expand", "plan", "--annotations-uri", str(tmp_path / "nowhere")])
    assert stop.value.code == 2 and "nowhere" in capsys.readouterr().err
