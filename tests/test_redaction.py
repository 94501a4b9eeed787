"""No key, password or terminal escape gets out through an error, a log line, a manifest or a report."""

from __future__ import annotations

import io

import pytest

from llava.errors import RowError, StorageError, UserError
from llava.manifest import Manifest, redacted_settings
from llava.redaction import redact, visible
from llava.report import Report
from llava.telemetry import Telemetry

SECRETS = [
    ("https://user:hunter2secret@host:9000/v1", "hunter2secret"),
    ("https://hunter2secret@host/v1", "hunter2secret"),
    ("http://gateway/x?api_key=hunter2secret&y=1", "hunter2secret"),
    ("http://store/x?X-Amz-Signature=hunter2secret", "hunter2secret"),
    ("http://store/x?X-Amz-Credential=hunter2secret&b=c", "hunter2secret"),
    ("Authorization: Bearer hunter2secret", "hunter2secret"),
    ("Incorrect API key provided: sk-proj-hunter2secret", "hunter2secret"),
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_secrets_do_not_get_out(text: str, secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert secret not in redact(text)
    assert secret not in str(StorageError(f"{text}: the store did not answer"))
    assert secret not in Manifest(kind="model", stage="expand", settings={"a": {"b": [text]}}).model_dump_json()
    page = Report("t", text).text(text).table("settings", ["name", "value"], [["endpoint", text]]).html()
    assert secret not in page
    stream = io.StringIO()
    with Telemetry("expand", "run", stream=stream) as telemetry:
        telemetry.note(text)
    assert secret not in stream.getvalue()


@pytest.mark.parametrize(
    "text",
    ["s3://bucket/key?x=1", "an e-mail a@b.example", "see docs/rows.md", "https://host:9000/v1?page=2", "risk-free"],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_settings_keep_their_types() -> None:
    assert redacted_settings({"n": 1, "u": "http://u:pw@h/", "f": 0.5}) == {
        "n": 1, "u": "http://[redacted]@h/", "f": 0.5,
    }  # fmt: skip


def test_terminal_escapes_are_written_out() -> None:
    text = "\x1b]0;title\x07\x1b[2J row \u202egpj\r\x9b31m\ttab\nline"
    shown = visible(text)
    assert shown == "\\x1b]0;title\\x07\\x1b[2J row \\u202egpj\\r\\x9b31m\ttab\nline"
    assert "\x1b" not in str(UserError(text)) and "\u202e" not in str(UserError(text))
    stream = io.StringIO()
    with Telemetry("expand", "run", stream=stream) as telemetry:
        telemetry.note(text)
        telemetry.progress("rows", 1, 2, last="\x1b[31mred")
    assert "\x1b" not in stream.getvalue() and "\\x1b[31mred" in stream.getvalue()


def test_a_value_nested_without_end_is_shown_short() -> None:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    assert len(str(RowError("rows.json", 3, "image", value, "a path", problem="field-type"))) < 300
