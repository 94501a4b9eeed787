"""An OpenAI-compatible endpoint that serves the model: vLLM, SGLang, or anything else with /chat/completions.

Images go as PNG, so the server sees the very pixels that our own generator would; temperature is 0. What a server that
goes away has answered is safe: answers come out one by one, and a later run asks only for the rest.
"""

from __future__ import annotations

import base64
import io
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from threading import Event

import httpx
from PIL import Image

from llava import http_replies
from llava.errors import SettingsError, TransientError
from llava.evaluation.engines.base import Asked, Refusal
from llava.parsing import parse_rows
from llava.redaction import redact
from llava.retrying import Pauses

ATTEMPTS = 6
PAUSES = Pauses(first=1.0, longest=30.0, spread=0.3)
_CONNECT_S, _ANSWER_S = 10.0, 600.0
_TOGETHER_S = 2.0  # a file of answers each: an object store should not get one for every answer
_LATER = (408, 409, 425, 429)


class EndpointGone(TransientError):
    """The endpoint no longer answers, or only with errors of its own."""


class Endpoint:
    """One endpoint and one model of it.

    Args:
        url: base URL, such as http://vllm:8000/v1.
        model: as the endpoint names it; empty: the only one it serves.
        concurrency: requests in flight.
        blank_colour: see `Engine`.
        pauses: between attempts; None: PAUSES.

    Raises:
        SettingsError: no such URL, the key is refused, or the endpoint serves no model of that name.
        EndpointGone: it does not answer.
    """

    batched = False

    def __init__(
        self,
        url: str,
        model: str,
        *,
        concurrency: int,
        blank_colour: tuple[int, int, int],
        pauses: Pauses | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise SettingsError(f"endpoint: found {url!r}; expected a base URL such as http://vllm:8000/v1")
        self._url, self._pauses, self._concurrency = url.rstrip("/"), pauses or PAUSES, concurrency
        key = os.environ.get("OPENAI_API_KEY", "")
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S),
            limits=httpx.Limits(max_connections=concurrency),
        )
        self._stop = Event()
        self.model = self._served(model)
        self.title = f"endpoint {redact(self._url)}, model {self.model}, temperature 0"
        self.identity = f"endpoint {self.model}"
        self.chunk = concurrency * 4
        self.blank_colour = blank_colour

    def answers(self, requests: Sequence[Asked], max_new_tokens: int) -> Iterator[dict[int, str | Refusal]]:
        """As `Engine.answers`, in the order they arrive; what arrives within two seconds comes together."""
        with ThreadPoolExecutor(self._concurrency) as pool:
            place = {pool.submit(self._ask, request, max_new_tokens): k for k, request in enumerate(requests)}
            pending = set(place)
            failure: Exception | None = None
            arrived: dict[int, str | Refusal] = {}
            since = time.monotonic()
            while pending:
                done, pending = wait(pending, timeout=_TOGETHER_S, return_when=FIRST_COMPLETED)
                for future in done:
                    try:
                        arrived[place[future]] = future.result()
                    except (EndpointGone, SettingsError) as error:
                        # What is in flight is waited for and kept; what has not begun is not begun.
                        failure = failure or error
                        self._stop.set()
                if arrived and (not pending or time.monotonic() - since > _TOGETHER_S):
                    yield arrived
                    arrived, since = {}, time.monotonic()
            self._stop.clear()
            if failure:
                raise failure

    def _ask(self, request: Asked, max_new_tokens: int) -> str | Refusal:
        if self._stop.is_set():
            raise EndpointGone("not asked")
        content: list[dict[str, object]] = [
            {"type": "image_url", "image_url": {"url": _data_uri(image)}} for image in request.images
        ]
        content.append({"type": "text", "text": request.text})
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": max_new_tokens,
            "temperature": 0,
        }
        reply = self._send("POST", "/chat/completions", body)
        if reply.status_code >= 400:
            return Refusal(f"{reply.status_code}: {' '.join(reply.text.split())[:300]}")
        try:
            answer = parse_rows(reply.content)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise EndpointGone(
                f"endpoint: {self._url}: a reply without choices[0].message.content: {reply.text[:200]!r}"
            ) from error
        return str(answer or "").strip()

    def _served(self, model: str) -> str:
        reply = self._send("GET", "/models", None)
        try:
            names = [str(item["id"]) for item in parse_rows(reply.content)["data"]] if reply.is_success else []
        except (ValueError, KeyError, TypeError):
            names = []
        if model and (not names or model in names):
            return model
        if not model and len(names) == 1:
            return names[0]
        found = f"found {model!r}" if model else "none given"
        raise SettingsError(f"endpoint_model: {found}; expected one of those that {self._url} serves: {names}")

    def _send(self, method: str, path: str, body: dict[str, object] | None) -> httpx.Response:
        """The reply, after as many attempts as may help; 4xx of a request's own is returned.

        Raises:
            SettingsError: the key or the address is refused, for every request alike.
            EndpointGone: no answer, or only the server's own errors, `ATTEMPTS` times.
        """
        said = ""
        for _ in self._pauses.attempts(most=ATTEMPTS):
            if self._stop.is_set():
                break
            try:
                reply = http_replies.ask(self._client, method, f"{self._url}{path}", json=body)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                said = f"{type(error).__name__}: {error}"
                continue
            status = reply.status_code
            if status in (401, 403) or (status == 404 and method == "POST"):
                raise SettingsError(
                    f"endpoint: {self._url}{path} answered {status}: {' '.join(reply.text.split())[:300]}; "
                    "expected an OpenAI-compatible server, and its key in OPENAI_API_KEY where it wants one"
                )
            if status < 500 and status not in _LATER:
                return reply
            said = f"{status}: {' '.join(reply.text.split())[:200]}"
        raise EndpointGone(
            f"endpoint: {self._url} is gone ({said or 'others failed'}). Every answer that came is kept: run the same "
            "again when it is back, and only the rest is asked"
        )


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
