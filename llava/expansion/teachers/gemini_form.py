"""Gemini's generateContent form: a chat-completions body as its request, a line of batch answers as a reply."""

from __future__ import annotations

from typing import Any

from llava.expansion.teachers.base import Reply, Usage, token_count
from llava.expansion.teachers.completions import failure_of
from llava.expansion.teachers.data_uri import split_data_uri
from llava.expansion.teachers.failures import TeacherFailure

_CONFIG = {
    "temperature": "temperature",
    "top_p": "topP",
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "seed": "seed",
}
_TOP = ("safetySettings", "cachedContent", "tools", "toolConfig")
_REASONS = {"STOP": "stop", "MAX_TOKENS": "length"}
_FILTERS = ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "LANGUAGE")


def request_of(body: dict[str, Any]) -> dict[str, Any]:
    """A GenerateContentRequest. Unknown fields of the body go into `generationConfig` as they are named."""
    rest = dict(body)
    rest.pop("model")
    messages = rest.pop("messages")
    system = [message["content"] for message in messages if message["role"] == "system"]
    turns = [message for message in messages if message["role"] != "system"]
    request: dict[str, Any] = {
        "contents": [
            {"role": "model" if turn["role"] == "assistant" else "user", "parts": _parts(turn["content"])}
            for turn in turns
        ]
    }
    if system:
        request["systemInstruction"] = {"parts": [{"text": text} for text in system]}
    request |= {name: rest.pop(name) for name in _TOP if name in rest}
    if rest:
        request["generationConfig"] = {_CONFIG.get(name, name): value for name, value in rest.items()}
    return request


def read_answer(line: dict[str, Any], model: str) -> Reply:
    """One line of the answers.

    Raises:
        TeacherFailure: the request failed or was blocked.
    """
    if line.get("error"):
        error = line["error"]
        raise failure_of(_status(error), {"error": error}, {})
    response = line["response"]
    usage = _usage(response.get("usageMetadata"))
    blocked = (response.get("promptFeedback") or {}).get("blockReason")
    if blocked:
        raise TeacherFailure("drop", f"content_filter: {blocked}", billed=bool(usage.input), usage=usage)
    if not response.get("candidates"):
        raise TeacherFailure("retry", "malformed response: no candidates", billed=True, usage=usage)
    candidate = response["candidates"][0]
    parts = (candidate.get("content") or {}).get("parts") or []
    text = "".join(part.get("text", "") for part in parts if not part.get("thought"))
    reason = str(candidate.get("finishReason") or "STOP")
    reason = "content_filter" if reason in _FILTERS else _REASONS.get(reason, reason)
    return Reply(text, reason, str(response.get("modelVersion") or model), usage)


def _status(error: dict[str, Any]) -> int:
    """HTTP status of a google.rpc.Status, whose codes are 0 to 16."""
    code = int(error.get("code") or 0)
    known = {3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 13: 500, 14: 503, 16: 401}
    return code if code >= 100 else known.get(code, 500)


def _usage(usage: Any) -> Usage:
    usage = usage if isinstance(usage, dict) else {}
    names = ("promptTokenCount", "cachedContentTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
    known = [count for count in map(token_count, map(usage.get, names)) if count is not None]
    if len(known) < len(names):
        return Usage()
    read, cached, written, thought = known
    return Usage(read, cached, written + thought)


def _parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"text": content}]
    parts: list[dict[str, Any]] = []
    for part in content:
        if part["type"] != "image_url":
            parts.append({"text": part["text"]})
            continue
        url = part["image_url"]["url"]
        data = split_data_uri(url)
        parts.append({"inlineData": {"mimeType": data[0], "data": data[1]}} if data else {"fileData": {"fileUri": url}})
    return parts
