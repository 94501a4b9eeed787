"""Batch interfaces of providers: upload, create, look, fetch, cancel. Three forms behind one contract.

Written after the public references: OpenAI's Batch and Files endpoints (which others copy), Anthropic's Message
Batches, Gemini's batchGenerateContent with an uploaded file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import httpx

from llava import http_replies
from llava.errors import SettingsError
from llava.expansion.recipe.requests import Request
from llava.expansion.teachers import anthropic_form, gemini_form
from llava.expansion.teachers.completions import failure_of
from llava.expansion.teachers.failures import TeacherFailure
from llava.expansion.teachers.hosted import key_for
from llava.parsing import parse_json

BatchForm = Literal["openai", "anthropic", "gemini"]


@dataclass(frozen=True)
class Seen:
    """What a provider says of a job.

    Attributes:
        ended: nothing more will come; what was answered can be fetched, of a cancelled or expired job too.
        note: why it failed; empty otherwise.
        files: where its answers are.
        cancelled: somebody ended it.
    """

    ended: bool
    note: str = ""
    files: tuple[str, ...] = ()
    cancelled: bool = False


class BatchInterface(Protocol):
    """A provider; every method raises `TeacherFailure`."""

    form: BatchForm
    most_requests: int
    most_bytes: int

    def line(self, request: Request) -> bytes:
        """One request in this form, with its line end."""
        ...

    def create(self, key: str, model: str, lines: list[bytes]) -> str:
        """Send a job; its id at the provider."""
        ...

    def find(self, key: str, requests: int, since: float, taken: set[str]) -> str:
        """The id of a job whose creation was not answered, or not recorded; empty where there is none."""
        ...

    def look(self, job: str) -> Seen: ...

    def fetch(self, file: str) -> Iterator[bytes]:
        """The lines of an answer file."""
        ...

    def cancel(self, job: str) -> None: ...


class _Http:
    """Calls with a key, whose errors are classed as online."""

    def __init__(self, base: str, headers: dict[str, str], timeout: float) -> None:
        self.base = base.rstrip("/")
        self._client = httpx.Client(headers=headers, timeout=timeout, follow_redirects=False)

    def call(self, method: str, path: str, **sent: Any) -> httpx.Response:
        url = path if path.startswith("http") else f"{self.base}{path}"
        try:
            response = http_replies.ask(self._client, method, url, **sent)
        except httpx.HTTPError as error:
            raise TeacherFailure("retry", f"connection: {error or type(error).__name__}", billed=True) from error
        if response.status_code >= 300:
            raise failure_of(response.status_code, _json(response.content), response.headers)
        return response

    def json(self, method: str, path: str, **sent: Any) -> dict[str, Any]:
        found = _json(self.call(method, path, **sent).content)
        if not isinstance(found, dict):
            raise TeacherFailure("retry", "malformed response: not a JSON object", billed=True)
        return found

    def lines(self, path: str) -> Iterator[bytes]:
        """Streamed, and split on line feeds only: U+2028 and its like may stand inside a JSON string."""
        rest = b""
        try:
            url = path if path.startswith("http") else f"{self.base}{path}"
            with self._client.stream("GET", url) as response:
                if response.status_code >= 300:
                    raise failure_of(response.status_code, _json(http_replies.body_of(response)), response.headers)
                for chunk in response.iter_bytes():
                    *whole, rest = (rest + chunk).split(b"\n")
                    if len(rest) > http_replies.MOST_BYTES:
                        raise httpx.DecodingError(f"a line is longer than {http_replies.MOST_BYTES:,} bytes")
                    yield from (line for line in whole if line.strip())
        except httpx.HTTPError as error:
            raise TeacherFailure("retry", f"connection: {error or type(error).__name__}") from error
        if rest.strip():
            yield rest


class OpenAIBatches:
    """Files and Batches of an OpenAI-compatible endpoint."""

    form: BatchForm = "openai"
    most_requests = 50_000
    most_bytes = 200_000_000

    def __init__(self, endpoint: str, timeout: float) -> None:
        base = endpoint or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        self._http = _Http(base, {"Authorization": f"Bearer {key_for(endpoint)}"}, timeout)

    def line(self, request: Request) -> bytes:
        line = {"custom_id": request.id, "method": "POST", "url": "/v1/chat/completions", "body": request.body()}
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"

    def create(self, key: str, model: str, lines: list[bytes]) -> str:
        upload = {"file": (f"{key}.jsonl", b"".join(lines), "application/jsonl")}
        file = self._http.json("POST", "/files", files=upload, data={"purpose": "batch"})
        body = {
            "input_file_id": file["id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"llava_key": key},
        }
        return str(self._http.json("POST", "/batches", json=body)["id"])

    def find(self, key: str, requests: int, since: float, taken: set[str]) -> str:
        after = ""
        while True:
            page = self._http.json("GET", f"/batches?limit=100{f'&after={after}' if after else ''}")
            jobs = page.get("data") or []
            for job in jobs:
                if (job.get("metadata") or {}).get("llava_key") == key:
                    return str(job["id"])
            if not jobs or not page.get("has_more"):
                return ""
            after = str(jobs[-1]["id"])

    def look(self, job: str) -> Seen:
        said = self._http.json("GET", f"/batches/{job}")
        status = str(said.get("status"))
        files = tuple(str(said[name]) for name in ("output_file_id", "error_file_id") if said.get(name))
        if status == "failed":
            errors = (said.get("errors") or {}).get("data") or [{}]
            note = f"{errors[0].get('code') or 'failed'}: {errors[0].get('message') or 'no reason given'}"
            return Seen(True, note, files)
        return Seen(status in ("completed", "expired", "cancelled"), "", files, status == "cancelled")

    def fetch(self, file: str) -> Iterator[bytes]:
        return self._http.lines(f"/files/{file}/content")

    def cancel(self, job: str) -> None:
        self._http.call("POST", f"/batches/{job}/cancel")


class AnthropicBatches:
    """Message Batches. They carry no name of ours: a lost one is found by its time and its number of requests."""

    form: BatchForm = "anthropic"
    most_requests = 100_000
    most_bytes = 256_000_000

    def __init__(self, endpoint: str, timeout: float) -> None:
        headers = {"x-api-key": key_for(endpoint, "ANTHROPIC_API_KEY"), "anthropic-version": "2023-06-01"}
        self._http = _Http(endpoint or "https://api.anthropic.com", headers, timeout)

    def line(self, request: Request) -> bytes:
        line = {"custom_id": request.id, "params": anthropic_form.params_of(request.body())}
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"

    def create(self, key: str, model: str, lines: list[bytes]) -> str:
        body = b'{"requests": [' + b",".join(line.rstrip(b"\n") for line in lines) + b"]}"
        sent = {"content": body, "headers": {"Content-Type": "application/json"}}
        return str(self._http.json("POST", "/v1/messages/batches", **sent)["id"])

    def find(self, key: str, requests: int, since: float, taken: set[str]) -> str:
        after = ""
        while True:
            page = self._http.json("GET", f"/v1/messages/batches?limit=100{f'&after_id={after}' if after else ''}")
            jobs = page.get("data") or []
            for job in jobs:
                created = datetime.fromisoformat(str(job["created_at"]).replace("Z", "+00:00")).astimezone(UTC)
                total = sum(int(number) for number in (job.get("request_counts") or {}).values())
                if job["id"] not in taken and total == requests and created.timestamp() >= since - 60:
                    return str(job["id"])
            if not jobs or not page.get("has_more"):
                return ""
            after = str(jobs[-1]["id"])

    def look(self, job: str) -> Seen:
        said = self._http.json("GET", f"/v1/messages/batches/{job}")
        ended = said.get("processing_status") == "ended"
        files = (f"/v1/messages/batches/{job}/results",) if ended else ()
        return Seen(ended, "", files, ended and bool(said.get("cancel_initiated_at")))

    def fetch(self, file: str) -> Iterator[bytes]:
        return self._http.lines(file)

    def cancel(self, job: str) -> None:
        self._http.call("POST", f"/v1/messages/batches/{job}/cancel")


class GeminiBatches:
    """batchGenerateContent over an uploaded file; the job's display name is our key."""

    form: BatchForm = "gemini"
    most_requests = 200_000
    most_bytes = 2_000_000_000

    def __init__(self, endpoint: str, timeout: float) -> None:
        headers = {"x-goog-api-key": key_for(endpoint, "GEMINI_API_KEY")}
        self._http = _Http(endpoint or "https://generativelanguage.googleapis.com", headers, timeout)

    def line(self, request: Request) -> bytes:
        line = {"key": request.id, "request": gemini_form.request_of(request.body())}
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"

    def create(self, key: str, model: str, lines: list[bytes]) -> str:
        content = b"".join(lines)
        start = {
            "X-Goog-Upload-Protocol": "resumable",
            "X-Goog-Upload-Command": "start",
            "X-Goog-Upload-Header-Content-Length": str(len(content)),
            "X-Goog-Upload-Header-Content-Type": "application/jsonl",
        }
        named = {"file": {"display_name": key}}
        began = self._http.call("POST", "/upload/v1beta/files", headers=start, json=named)
        whole = {"X-Goog-Upload-Offset": "0", "X-Goog-Upload-Command": "upload, finalize"}
        file = self._http.json("POST", began.headers["x-goog-upload-url"], headers=whole, content=content)
        body = {"batch": {"display_name": key, "input_config": {"file_name": file["file"]["name"]}}}
        return str(self._http.json("POST", f"/v1beta/models/{model}:batchGenerateContent", json=body)["name"])

    def find(self, key: str, requests: int, since: float, taken: set[str]) -> str:
        token = ""
        while True:
            page = self._http.json("GET", f"/v1beta/batches?pageSize=100{f'&pageToken={token}' if token else ''}")
            for job in page.get("operations") or []:
                if (job.get("metadata") or {}).get("displayName") == key:
                    return str(job["name"])
            token = str(page.get("nextPageToken") or "")
            if not token:
                return ""

    def look(self, job: str) -> Seen:
        said = self._http.json("GET", f"/v1beta/{job}")
        about = said.get("metadata") or {}
        state = str(about.get("state") or "").rpartition("STATE_")[2]
        file = (said.get("response") or about.get("output") or {}).get("responsesFile")
        files = (str(file),) if file else ()
        if said.get("error") or state == "FAILED":
            return Seen(True, str((said.get("error") or {}).get("message") or "failed"), files)
        return Seen(state in ("SUCCEEDED", "CANCELLED", "EXPIRED"), "", files, state == "CANCELLED")

    def fetch(self, file: str) -> Iterator[bytes]:
        return self._http.lines(f"/download/v1beta/{file}:download?alt=media")

    def cancel(self, job: str) -> None:
        self._http.call("POST", f"/v1beta/{job}:cancel")


def open_batches(form: str, endpoint: str, timeout: float) -> BatchInterface:
    """The interface of that form.

    Raises:
        SettingsError: no such form, or the key is missing.
    """
    if form == "anthropic":
        return AnthropicBatches(endpoint, timeout)
    if form == "gemini":
        return GeminiBatches(endpoint, timeout)
    if form == "openai":
        return OpenAIBatches(endpoint, timeout)
    raise SettingsError(f"batch_form: found {form!r}; expected openai, anthropic or gemini")


def _json(content: bytes) -> Any:
    try:
        return parse_json(content)
    except ValueError:
        return content[:300].decode(errors="replace")
