"""An OpenAI-compatible endpoint on a saved model, and a page to try it: for trying, not for production (that is vLLM).

POST /v1/chat/completions   text and images in, an answer out, whole or as a stream
GET  /v1/models             the one model there is
GET  /health                200 while the model answers
GET  /metrics               Prometheus
GET  /                      a page: image, chat, examples
"""

from __future__ import annotations

import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from llava.inference.batching import Batcher
from llava.inference.protocol import Asked, Limits, Refused, read
from llava.parsing import Malformed, parse_json

MAX_BODY_BYTES = 32 << 20


@dataclass(frozen=True)
class Served:
    """What is served.

    Attributes:
        name: of the model, for clients.
        processor: saved with the model.
        batcher: owns the model.
        limits: of one request.
        key: that clients must send as a bearer token; empty: none is asked for.
    """

    name: str
    processor: Any
    batcher: Batcher
    limits: Limits
    key: str = ""


class _Figures:
    """Counted for Prometheus."""

    def __init__(self, batcher: Batcher) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("llava_serve_requests_total", "Requests by status", ["status"], registry=self.registry)
        self.tokens = Counter("llava_serve_tokens_total", "Tokens by kind", ["kind"], registry=self.registry)
        self.seconds = Histogram(
            "llava_serve_seconds", "From a request to the end of its answer",
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300), registry=self.registry,
        )  # fmt: skip
        Gauge("llava_serve_waiting", "Requests that wait", registry=self.registry).set_function(lambda: batcher.waiting)
        batches = Gauge("llava_serve_batches", "Batches answered so far", registry=self.registry)
        batches.set_function(lambda: batcher.batches)


def make_app(served: Served) -> Starlette:
    """The application, for any ASGI server."""
    figures = _Figures(served.batcher)
    page = files("llava.inference").joinpath("page.html").read_text(encoding="utf-8")

    async def chat(request: Request) -> Response:
        began = time.monotonic()
        try:
            _require_key(request, served.key)
            asked = await run_in_threadpool(
                read, await _json(request), served.name, served.processor, served.limits
            )  # decoding an image must not hold up the others' streams
            figures.tokens.labels("prompt").inc(asked.prompt_tokens)
            if asked.stream:
                return await _stream(asked, began)
            text, tokens, cut = "", 0, False
            async for piece in served.batcher.answer(asked.request):
                text += piece.text
                if piece.tokens is not None:
                    tokens, cut = piece.tokens, piece.cut
        except Refused as refusal:
            figures.requests.labels(str(refusal.status)).inc()
            headers = {"Retry-After": "1"} if refusal.status == 429 else None
            return JSONResponse(refusal.body(), refusal.status, headers)
        figures.requests.labels("200").inc()
        figures.tokens.labels("answer").inc(tokens)
        figures.seconds.observe(time.monotonic() - began)
        choice = {"index": 0, "message": {"role": "assistant", "content": text.strip()}, "finish_reason": _why(cut)}
        usage = _usage(asked.prompt_tokens, tokens)
        return JSONResponse({**_head("chat.completion"), "choices": [choice], "usage": usage})

    async def _stream(asked: Asked, began: float) -> Response:
        pieces = served.batcher.answer(asked.request)
        first = await anext(pieces)  # a refusal must still have its status
        head = _head("chat.completion.chunk")

        async def events() -> AsyncIterator[str]:
            yield _event({**head, "choices": [_delta({"role": "assistant", "content": ""})]})
            piece, status = first, "200"
            try:
                while piece.tokens is None:
                    yield _event({**head, "choices": [_delta({"content": piece.text})]})
                    piece = await anext(pieces)
            except Refused as refusal:  # in the middle of a stream there is no status any more
                status = str(refusal.status)
                yield _event(refusal.body())
                return
            finally:
                figures.requests.labels(status).inc()
                await pieces.aclose()  # type: ignore[attr-defined]
            figures.tokens.labels("answer").inc(piece.tokens)
            figures.seconds.observe(time.monotonic() - began)
            yield _event({**head, "choices": [_delta({}, _why(piece.cut))]})
            if asked.usage_at_end:
                yield _event({**head, "choices": [], "usage": _usage(asked.prompt_tokens, piece.tokens)})
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})

    def _head(kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": served.name,
        }

    async def models(request: Request) -> Response:
        try:
            _require_key(request, served.key)
        except Refused as refusal:
            return JSONResponse(refusal.body(), refusal.status)
        entry = {"id": served.name, "object": "model", "created": 0, "owned_by": "llava"}
        return JSONResponse({"object": "list", "data": [entry]})

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok" if served.batcher.alive else "dead"}, 200 if served.batcher.alive else 503)

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(figures.registry), media_type="text/plain; version=0.0.4")

    async def index(request: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/models", models),
            Route("/health", health),
            Route("/metrics", metrics),
            Route("/", index),
        ]
    )


# The page talks to its own server alone.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'"
)


def _require_key(request: Request, key: str) -> None:
    sent = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    if key and not hmac.compare_digest(sent.encode(), key.encode()):
        raise Refused(401, "invalid_api_key", "Authorization: expected this server's key as a bearer token")


async def _json(request: Request) -> Any:
    """The body, of which no more is read than allowed.

    Raises:
        Refused: too long, or no JSON.
    """
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY_BYTES:
                raise Refused(413, "body_too_large", f"body: more than {MAX_BODY_BYTES >> 20} MiB; send smaller images")
    except ClientDisconnect:
        raise Refused(400, "disconnected", "body: ended early") from None
    try:
        return parse_json(bytes(body))
    except Malformed as error:
        raise Refused(400, "invalid_json", f"body: {error}") from None


def _delta(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": reason}


def _why(cut: bool) -> str:
    return "length" if cut else "stop"


def _usage(prompt: int, answer: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
