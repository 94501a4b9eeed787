"""Any OpenAI-compatible endpoint, hosted or a local vLLM, through the `openai` client.

The key comes from OPENAI_API_KEY and is handed to nobody but the client. Retries are not the client's but
`dispatch`'s, which can tell a rate limit from an empty account.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import time
from typing import Any

import openai

from llava.errors import SettingsError
from llava.expansion.recipe.requests import Request
from llava.expansion.teachers.base import Reply, Usage
from llava.expansion.teachers.failures import TeacherFailure

_OUT_OF_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "account_deactivated")
_ABOUT_CONTENT = ("content_filter", "content_policy_violation", "context_length_exceeded", "string_above_max_length")


class HostedTeacher:
    """One endpoint and model.

    Args:
        endpoint: base URL (`http://vllm:8000/v1`); empty: OPENAI_BASE_URL, or the client's default.
        model: as the endpoint names it.
        timeout: seconds for one request, connection and answer together.

    Raises:
        SettingsError: no model, or no OPENAI_API_KEY for the default endpoint.
    """

    def __init__(self, endpoint: str, model: str, *, timeout: float) -> None:
        if not model:
            raise SettingsError("teacher_model: empty; expected the model's name as the endpoint knows it")
        key = os.environ.get("OPENAI_API_KEY", "")
        if not key and not endpoint and not os.environ.get("OPENAI_BASE_URL"):
            raise SettingsError(
                "OPENAI_API_KEY is not set; the default endpoint needs it (from a secret, never a setting)"
            )
        self.model = model
        self._timeout = timeout
        # A local server without authentication still wants the header to be there.
        self._client = openai.AsyncOpenAI(
            base_url=endpoint or None, api_key=key or "unused", max_retries=0, timeout=timeout
        )

    async def ask(self, request: Request) -> Reply:
        """One chat completion.

        Raises:
            TeacherFailure: classed by what the server said.
        """
        try:
            # The client's timeout is for each read; a server that sends a byte now and then would hold us for ever.
            async with asyncio.timeout(self._timeout):
                raw = await self._client.chat.completions.with_raw_response.create(**request.body())
                data = raw.http_response.json()
        except (openai.APITimeoutError, TimeoutError) as error:
            raise TeacherFailure("retry", "timeout", throttled=True) from error
        except openai.APIStatusError as error:
            raise failure_of(error.status_code, error.body, error.response.headers) from error
        except openai.APIConnectionError as error:
            raise TeacherFailure("retry", f"connection: {error.__cause__ or error}") from error
        except (openai.APIError, ValueError) as error:
            raise TeacherFailure("retry", f"malformed response: {type(error).__name__}") from error
        return read_completion(data, request.model)

    async def close(self) -> None:
        """Close connections."""
        await self._client.close()


def read_completion(data: Any, model: str) -> Reply:
    """A chat completion's JSON as a reply.

    Raises:
        TeacherFailure: `retry`, the JSON is not a chat completion.
    """
    try:
        choice = data["choices"][0]
        message = choice["message"]
        usage = data.get("usage") or {}
        text = message.get("content")
        reason = choice.get("finish_reason") or "stop"
        if not text and message.get("refusal"):
            text, reason = message["refusal"], "content_filter"
        return Reply(
            text if isinstance(text, str) else "",
            str(reason),
            str(data.get("model") or model),
            Usage(
                int(usage.get("prompt_tokens") or 0),
                int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
                int(usage.get("completion_tokens") or 0),
            ),
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise TeacherFailure("retry", f"malformed response: no {error}") from error


def failure_of(status: int, body: Any, headers: Any) -> TeacherFailure:
    """Class an HTTP error."""
    fault = body.get("error", body) if isinstance(body, dict) else {}
    fault = fault if isinstance(fault, dict) else {"message": str(fault)}
    code = str(fault.get("code") or fault.get("type") or "")
    message = f"{status} {code} {fault.get('message') or ''}".strip()[:300]
    if status == 429 and not any(name in message for name in _OUT_OF_MONEY):
        return TeacherFailure("retry", message, retry_after=_retry_after(headers), throttled=True)
    if status in (408, 409, 425) or status >= 500:
        return TeacherFailure("retry", message, retry_after=_retry_after(headers), throttled=status in (503, 529))
    if status in (401, 402, 403, 404, 405, 429):
        return TeacherFailure("stop", message)
    if any(name in message for name in _ABOUT_CONTENT) or status in (400, 413, 422):
        return TeacherFailure("drop", message)
    return TeacherFailure("stop", message)


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
