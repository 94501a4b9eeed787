"""A line of a batch's answers, in whichever provider's form it is."""

from __future__ import annotations

from typing import Any

from llava.expansion.teachers import anthropic_form, gemini_form
from llava.expansion.teachers.base import Reply
from llava.expansion.teachers.completions import failure_of, read_completion
from llava.expansion.teachers.failures import TeacherFailure


def read_answer(line: dict[str, Any], model: str) -> tuple[str, Reply | TeacherFailure]:
    """(request id, what came of it).

    Raises:
        ValueError, KeyError, TypeError, AttributeError: the line is of no known form.
    """
    try:
        if "key" in line:
            return str(line["key"]), gemini_form.read_answer(line, model)
        if "result" in line:
            return str(line["custom_id"]), anthropic_form.read_result(line["result"], model)
        return str(line["custom_id"]), _openai(line, model)
    except TeacherFailure as failure:
        return str(line.get("key") or line["custom_id"]), failure


def _openai(line: dict[str, Any], model: str) -> Reply:
    response = line.get("response") or {}
    status = int(response.get("status_code") or 0)
    if status == 200:
        return read_completion(response.get("body"), model)
    fault = response.get("body") or {"error": line.get("error")}
    if not status:
        # Expired, cancelled, or never started: there was no answer at all, so there may be one later.
        error = line.get("error") or {}
        raise TeacherFailure("retry", f"no answer: {error.get('code') or error.get('message') or 'no reason given'}")
    raise failure_of(status, fault, {})
