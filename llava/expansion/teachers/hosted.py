"""Any OpenAI-compatible endpoint, hosted or a local vLLM, through the `openai` client.

The key comes from OPENAI_API_KEY and is handed to nobody but the client. Retries are not the client's but
`dispatch`'s, which can tell a rate limit from an empty account.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llava.errors import SettingsError, StorageError
from llava.expansion.recipe.requests import Request
from llava.expansion.teachers.base import Reply
from llava.expansion.teachers.completions import failure_of, read_completion
from llava.expansion.teachers.failures import TeacherFailure
from llava.expansion.teachers.twice import Twice
from llava.parsing import parse_rows

if TYPE_CHECKING:
    import openai

_BYTES_PER_TOKEN = 16  # far above any text, JSON escapes included
_LEAST_CAP = 262_144


def _not_sent(cause: BaseException | None) -> bool:
    """Whether the request did not go out, or not whole: then nothing can have been worked on."""
    import httpx2

    early = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.WriteError, httpx2.WriteTimeout)
    return isinstance(cause, early)


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
        self.model = model
        self._timeout = timeout
        self._endpoint = endpoint
        self._key = key_for(endpoint)
        self._twice = Twice()
        import httpx2  # what the openai package speaks HTTP with, and comes with it

        self._verify = httpx2.create_ssl_context()
        self._idle: list[_Line] = []
        self._generation = 0

    async def ask(self, request: Request) -> Reply:
        """One chat completion.

        A request has a connection to itself until its reply has been looked at. A server that answers twice shifts what
        comes after it on that connection; in a pool, another request could take the connection, and with it a reply
        that is not its own, before the first doubled one has been told from a good one.

        Raises:
            TeacherFailure: classed by what the server said, and by whether it may charge for it.
        """
        line = self._idle.pop() if self._idle else self._connect()
        sound = False
        try:
            data, cut = await self._fetch(line.client, request)
            name = str(data.get("id") or "") if isinstance(data, dict) else ""
            if not cut and self._twice.seen(name, json.dumps(data, sort_keys=True)):
                raise TeacherFailure("retry", "the same response came twice", billed=True, suspect=True)
            sound = not cut
        except TeacherFailure as failure:
            sound = bool(failure.status)  # the server's own answer, read to its end
            raise
        finally:
            if sound and line.generation == self._generation:
                self._idle.append(line)
            else:
                await line.client.close()
        if cut:
            return Reply(data if isinstance(data, str) else "", "oversized", request.model, oversized=True)
        return read_completion(data, request.model)

    def _connect(self) -> _Line:
        import httpx2
        import openai  # takes a second, which who only checks settings does not wait for

        # One connection: whoever has the client has it alone.
        one = httpx2.Limits(max_connections=1, max_keepalive_connections=1)
        client = openai.AsyncOpenAI(
            base_url=self._endpoint or None,
            api_key=self._key,
            max_retries=0,
            timeout=self._timeout,
            http_client=openai.DefaultAsyncHttpxClient(limits=one, verify=self._verify, timeout=self._timeout),
        )
        return _Line(client, self._generation)

    async def _fetch(self, client: openai.AsyncOpenAI, request: Request) -> tuple[Any, bool]:
        """The JSON of the response, or the beginning of its text and True where it is longer than any reply can be."""
        import httpx2
        import openai

        body = await self._body(request)
        cap = max(_LEAST_CAP, _BYTES_PER_TOKEN * (request.max_tokens or 0))
        received = bytearray()
        try:
            # The client's timeout is for each read; a server that sends a byte now and then would hold us for ever.
            async with asyncio.timeout(self._timeout):
                async with client.chat.completions.with_streaming_response.create(
                    model=body.pop("model"), messages=body.pop("messages"), extra_body=body
                ) as response:
                    async for chunk in response.iter_bytes():
                        received += chunk
                        if len(received) > cap:
                            return received[:1000].decode(errors="replace"), True
        except (openai.APITimeoutError, TimeoutError) as error:
            sent = not _not_sent(error.__cause__)
            raise TeacherFailure("retry", "timeout", throttled=True, billed=sent) from error
        except openai.APIStatusError as error:
            raise failure_of(error.status_code, error.body, error.response.headers) from error
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            cause = error.__cause__ or error
            sent = not _not_sent(cause)
            raise TeacherFailure("retry", f"connection: {cause or type(cause).__name__}", billed=sent) from error
        except openai.APIError as error:
            raise TeacherFailure("retry", f"malformed response: {type(error).__name__}", billed=True) from error
        try:
            return parse_rows(bytes(received)), False
        except ValueError as error:
            raise TeacherFailure("retry", "malformed response: not JSON", billed=True) from error

    async def _body(self, request: Request) -> dict[str, Any]:
        if request.attached is None:
            return request.body()
        try:
            return await asyncio.to_thread(request.body)  # an image is read and encoded: others go on meanwhile
        except StorageError as error:
            raise TeacherFailure("retry", f"image: {error}") from error

    async def renew(self) -> None:
        """Use new connections from now on; those in use are closed when their replies are in."""
        self._generation += 1
        await self.close()

    async def close(self) -> None:
        """Close connections that nobody uses."""
        idle, self._idle = self._idle, []
        for line in idle:
            await line.client.close()


@dataclass(frozen=True)
class _Line:
    """A client of one connection, and how often connections had been renewed when it was made."""

    client: openai.AsyncOpenAI
    generation: int


def key_for(endpoint: str, name: str = "OPENAI_API_KEY") -> str:
    """The key from the environment; a local server without authentication still wants the header to be there.

    Raises:
        SettingsError: there is none, and the default endpoint needs it.
    """
    key = os.environ.get(name, "")
    if not key and not endpoint and not os.environ.get("OPENAI_BASE_URL"):
        raise SettingsError(f"{name} is not set; the default endpoint needs it (from a secret, never a setting)")
    return key or "unused"
