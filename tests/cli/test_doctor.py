"""`llava doctor`, `llava --version`, and completions as a shell asks for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import llava
from llava.cli import main
from llava.cli.doctor import examine
from tests.s3_server import S3Server

pytestmark = pytest.mark.slow

LLAVA = str(Path(sys.executable).parent / "llava")


def test_everything_is_looked_at_and_no_key_is_shown(
    moto_s3: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-indeed")
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--offline", "--json", "--store", f"{moto_s3.uri}/some"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    found = {entry["topic"]: entry for entry in json.loads(shown)}
    assert {"llava", "Python", "train", "GPU", "machine", "/dev/shm", "disk here", "keys", "store", "hub"} <= set(found)
    assert found["store"]["state"] == "ok" and "listed, written, read, deleted" in found["store"]["found"]
    assert "torch" in found["train"]["found"]
    assert "OPENAI_API_KEY" in found["keys"]["found"] and "secret" not in shown
    assert found["hub"]["found"] == "offline"


def test_a_store_that_refuses_is_wrong_and_says_where_to_look(
    moto_s3: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--offline", "--store", "s3://no-such-bucket/x"])
    assert ended.value.code == 1
    out = capsys.readouterr().out
    assert "WRONG  store" in out and "no-such-bucket" in out and "-> look at AWS_ENDPOINT_URL" in out


def test_a_hub_that_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    [hub] = [finding for finding in examine() if finding.topic == "hub"]
    assert hub.state == "note" and "cannot be reached" in hub.found and "HF_HUB_OFFLINE" in hub.advice


def test_version() -> None:
    done = subprocess.run([LLAVA, "--version"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith(f"llava {llava.__version__}")


@pytest.mark.parametrize(
    ("line", "expected"),
    [("llava doc", ["doctor"]), ("llava pretrain --rec", ["--recipe"]), ("llava data ch", ["check"])],
)
def test_a_shell_completes(line: str, expected: list[str]) -> None:
    environment = {"_LLAVA_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    done = subprocess.run(
        [LLAVA], env={**os.environ, **environment}, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == expected
