"""`llava <stage>`: flags made from the stage's definition, values checked by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from llava import cli
from llava.cli.stages import stage_command
from llava.errors import DataError, SettingsError
from tests.local.tiny_stages import STAGES

RUNNER = CliRunner(env={"COLUMNS": "160", "TERM": "dumb", "NO_COLOR": "1"})


def app_of(name: str) -> typer.Typer:
    app = typer.Typer()
    stage_command(STAGES[name], app)

    @app.command()
    def plan() -> None:
        typer.echo("planned")

    return app


def call(name: str, *arguments: str) -> Result:
    return RUNNER.invoke(app_of(name), list(arguments))


def test_help_shows_every_field_with_its_description_and_default() -> None:
    text = call("make", "--help").output
    for flag, said in {
        "--rows": "Rows to make [default: 3]",
        "--kind": "(plain | fancy)",
        "--no-loud": "Write in capitals [default: False]",
        "--log": "[required]",
        "--report": "[default: OUT/report.html]",
        "--out ": "Folder or URI",
    }.items():
        assert flag in text and said in text, text
    assert "Settings" in text and "Outputs" in text


def test_a_stage_runs_on_paths(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    made = call("make", "--log", log, "--rows", "2", "--scale", "2", "--loud", "--out", str(tmp_path / "made"))
    assert made.exit_code == 0, made.output
    assert json.loads((tmp_path / "made/data.json").read_text()) == {"kind": "plain", "rows": [0.0, 2.0], "loud": True}
    assert (tmp_path / "made/report.html").exists() and (tmp_path / "made/metrics.json").exists()
    learnt = call(
        "learn",
        "--log",
        log,
        "--data",
        str(tmp_path / "made/data.json"),
        "--model",
        str(tmp_path / "m"),
        "--metrics",
        str(tmp_path / "x.json"),
    )
    assert learnt.exit_code == 0, learnt.output
    assert json.loads((tmp_path / "x.json").read_text()) == {"total": 1.0}
    assert "total" in learnt.output and str(tmp_path / "m") in learnt.output


def test_subcommands_do_not_ask_for_the_stages_flags() -> None:
    assert call("make", "plan").output.strip() == "planned"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rows", "0", "--log", "l", "--out", "o"], "rows: found 0"),
        (["--out", "o"], "log: missing"),
        (["--log", "l"], "nowhere to write 'data'; give --out, or --data"),
    ],
)
def test_wrong_flags_are_named_before_anything_runs(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("make", *arguments)
    assert isinstance(result.exception, SettingsError) and said in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_a_users_error_ends_the_program_with_2_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise DataError("a.json: empty; expected a JSON list")

    monkeypatch.setattr(cli, "make_app", lambda wanted: app)
    with pytest.raises(SystemExit) as caught:
        cli.main([])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "llava: a.json: empty; expected a JSON list\n"


def test_top_level_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in cli.SUMMARIES)


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["train"])
    assert caught.value.code == 2 and "train" in capsys.readouterr().err
