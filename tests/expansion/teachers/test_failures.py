"""What a server's error means, and what is told of it."""

from __future__ import annotations

import pytest

from llava.errors import SettingsError
from llava.expansion.teachers.completions import failure_of
from llava.expansion.teachers.hosted import HostedTeacher
from llava.redaction import redact


@pytest.mark.parametrize(
    ("status", "code", "action"),
    [
        (429, "rate_limit_exceeded", "retry"),
        (429, "insufficient_quota", "stop"),
        (500, "", "retry"),
        (401, "invalid_api_key", "stop"),
        (404, "model_not_found", "reject"),
        (403, "", "reject"),
        (402, "", "stop"),
        (400, "unsupported_parameter", "reject"),
        (400, "content_filter", "drop"),
        (400, "context_length_exceeded", "drop"),
        (408, "", "retry"),
    ],
)
def test_errors_are_classed(status: int, code: str, action: str) -> None:
    assert failure_of(status, {"error": {"code": code, "message": "m"}}, {}).action == action


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry-after": "7"}, 7.0), ({"retry-after-ms": "250"}, 0.25), ({"retry-after": "nonsense"}, None), ({}, None)],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert failure_of(429, {}, headers).retry_after == seconds


def test_secrets_are_cut_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "my own secret")
    text = "my own secret, sk-proj-abcdefgh12345, Authorization: Bearer abc.def.ghi, http://user:pass@host/v1"
    assert not any(secret in redact(text) for secret in ("own secret", "abcdefgh", "abc.def", "user:pass"))


def test_no_key_for_the_default_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(SettingsError, match="OPENAI_API_KEY"):
        HostedTeacher("", "model", timeout=1)
