"""Anthropic's Messages form: a chat-completions body as its parameters, a batch result as a reply."""

from __future__ import annotations

from typing import Any

from llava.errors import SettingsError
from llava.expansion.teachers.base import Reply, Usage, token_count
from llava.expansion.teachers.completions import failure_of
from llava.expansion.teachers.data_uri import split_data_uri
from llava.expansion.teachers.failures import TeacherFailure

_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def params_of(body: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a Messages request. The shared prefix ends in a cache mark: it is read again at a tenth.

    Raises:
        SettingsError: the recipe sets no output limit, which this form demands.
    """
    rest = dict(body)
    model, messages = rest.pop("model"), rest.pop("messages")
    limits = [rest.pop(name, None) for name in ("max_tokens", "max_completion_tokens")]
    limit = next((limit for limit in limits if limit is not None), None)
    if limit is None:
        raise SettingsError("sampling.max_tokens: null; this provider's form demands an output limit")
    params: dict[str, Any] = {"model": model, "max_tokens": limit, **rest}
    system = [message["content"] for message in messages if message["role"] == "system"]
    turns = [message for message in messages if message["role"] != "system"]
    params["messages"] = [{"role": turn["role"], "content": _content(turn["content"])} for turn in turns]
    mark = {"cache_control": {"type": "ephemeral"}}
    if system:
        params["system"] = [{"type": "text", "text": text} for text in system]
    if len(turns) > 1:
        params["messages"][-2]["content"][-1].update(mark)
    elif system:
        params["system"][-1].update(mark)
    return params


def read_result(result: dict[str, Any], model: str) -> Reply:
    """One line's `result`.

    Raises:
        TeacherFailure: it errored, expired or was cancelled.
    """
    kind = result["type"]
    if kind == "errored":
        error = result.get("error") or {}
        error = error.get("error") or error
        raise failure_of(_STATUS.get(str(error.get("type")), 400), {"error": error}, {})
    if kind != "succeeded":
        raise TeacherFailure("retry", f"no answer: {kind}")
    return read_message(result["message"], model)


def read_message(message: dict[str, Any], model: str) -> Reply:
    """A message as a reply."""
    text = "".join(block.get("text", "") for block in message["content"] if block.get("type") == "text")
    reason = str(message.get("stop_reason"))
    return Reply(text, _REASONS.get(reason, reason), str(message.get("model") or model), _usage(message.get("usage")))


def _usage(usage: Any) -> Usage:
    """Here `input_tokens` counts only what was neither read from nor written to the cache."""
    usage = usage if isinstance(usage, dict) else {}
    names = ("input_tokens", "cache_read_input_tokens", "output_tokens", "cache_creation_input_tokens")
    known = [count for count in map(token_count, map(usage.get, names)) if count is not None]
    if len(known) < len(names):
        return Usage()
    fresh, read, output, written = known
    return Usage(fresh + read + written, read, output, written)


def _content(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    blocks: list[dict[str, Any]] = []
    for part in content:
        if part["type"] != "image_url":
            blocks.append({"type": "text", "text": part["text"]})
            continue
        url = part["image_url"]["url"]
        data = split_data_uri(url)
        source = {"type": "base64", "media_type": data[0], "data": data[1]} if data else {"type": "url", "url": url}
        blocks.append({"type": "image", "source": source})
    return blocks
