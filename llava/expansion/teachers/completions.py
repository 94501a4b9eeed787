"""The JSON of a chat completion, online or in a batch's answers, and the HTTP errors in its place."""

from __future__ import annotations

import email.utils
import time
from typing import Any

from llava.expansion.teachers.base import Reply, Usage, token_count
from llava.expansion.teachers.failures import TeacherFailure

_OUT_OF_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "account_deactivated")
_ABOUT_CONTENT = (
    "content_filter", "content_policy_violation", "context_length_exceeded", "string_above_max_length",
    "invalid_prompt", "image_parse_error", "invalid_image",
)  # fmt: skip


def read_completion(data: Any, model: str) -> Reply:
    """A chat completion's JSON as a reply.

    Raises:
        TeacherFailure: `retry`, the JSON is not a chat completion; with its usage, where that can be read.
    """
    usage = usage_of(data.get("usage")) if isinstance(data, dict) else None
    try:
        choice = data["choices"][0]
        message = choice["message"]
        text = message.get("content")
        reason = choice.get("finish_reason") or "stop"
        if isinstance(text, list):  # some endpoints answer in parts
            text = "".join(part.get("text", "") for part in text if part.get("type") == "text")
        if not text and message.get("refusal"):
            text, reason = message["refusal"], "content_filter"
        return Reply(
            text if isinstance(text, str) else "", str(reason), str(data.get("model") or model), usage or Usage()
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise TeacherFailure(
            "retry", f"malformed response: {type(error).__name__}: {error}", billed=True, usage=usage
        ) from error


def usage_of(usage: Any) -> Usage | None:
    """Token counts as the server gives them; None where there are none, or where one of them is no count."""
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    details = details if isinstance(details, dict) else {}
    counts = [
        token_count(usage.get("prompt_tokens")),
        token_count(details.get("cached_tokens")),
        token_count(usage.get("completion_tokens")),
        token_count(details.get("cache_write_tokens")),
    ]
    known = [count for count in counts if count is not None]
    if len(known) < len(counts) or not known[0]:
        return None
    return Usage(*known)


def failure_of(status: int, body: Any, headers: Any) -> TeacherFailure:
    """Class an HTTP error. Providers do not charge for these."""
    fault = body.get("error", body) if isinstance(body, dict) else {}
    fault = fault if isinstance(fault, dict) else {"message": str(fault)}
    code = str(fault.get("code") or fault.get("type") or "")
    message = f"{status} {code} {fault.get('message') or ''}".strip()[:300]
    if status == 429 and not any(name in message for name in _OUT_OF_MONEY):
        return TeacherFailure("retry", message, status=status, retry_after=_retry_after(headers), throttled=True)
    if status in (408, 409, 425) or status >= 500:
        busy = status in (503, 529)
        return TeacherFailure("retry", message, status=status, retry_after=_retry_after(headers), throttled=busy)
    if any(name in message for name in _ABOUT_CONTENT):
        return TeacherFailure("drop", message, status=status)
    if status in (400, 403, 404, 405, 413, 422):
        return TeacherFailure("reject", message, status=status)
    return TeacherFailure("stop", message, status=status)


def _retry_after(headers: Any) -> float | None:
    """Seconds from Retry-After (a number or a date) or retry-after-ms."""
    milliseconds = headers.get("retry-after-ms")
    value = headers.get("retry-after")
    try:
        if milliseconds is not None:
            return max(0.0, float(milliseconds) / 1000)
        if value is not None:
            return max(0.0, float(value))
    except ValueError:
        parsed = email.utils.parsedate_tz(value) if value else None
        if parsed:
            return max(0.0, email.utils.mktime_tz(parsed) - time.time())
    return None
