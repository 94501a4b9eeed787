"""What the wire does to a request, by raw sockets: not sent, cut in the middle, answered twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from llava.expansion.recipe.requests import Request
from llava.expansion.teachers.failures import TeacherFailure
from llava.expansion.teachers.hosted import HostedTeacher
from tests.expansion.small_job import captions, job

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def requests(tmp_path: Path) -> list[Request]:
    return list(job(captions(tmp_path / "annotations", 40)).requests())


async def asked(teacher: HostedTeacher, request: Request) -> str:
    try:
        return (await teacher.ask(request)).text
    except TeacherFailure as failure:
        if failure.suspect:
            await teacher.renew()
        return f"{failure.action}, billed: {failure.billed}: {failure}"


def with_server(answer: Answer, use: Callable[[str], Awaitable[None]]) -> None:
    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            await use(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")

    asyncio.run(run())


async def body_of(reader: asyncio.StreamReader) -> bytes:
    """The body of the next request."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    return await reader.readexactly(int(length.split(b":")[1]))


def completion(text: str) -> bytes:
    data = {
        "id": f"id-{text}",
        "model": "m",
        "choices": [{"finish_reason": "stop", "message": {"content": text}}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
    body = json.dumps(data).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def test_what_was_never_sent_is_not_billed(requests: list[Request]) -> None:
    async def use() -> None:
        teacher = HostedTeacher("http://127.0.0.1:9/v1", "m", timeout=5)
        assert (await asked(teacher, requests[0])).startswith("retry, billed: False: connection")
        await teacher.close()

    asyncio.run(use())


def test_a_reply_that_breaks_off_is_asked_for_again_and_may_be_billed(requests: list[Request]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await body_of(reader)
        writer.write(completion("whole")[:-10])
        await writer.drain()
        writer.close()

    async def use(endpoint: str) -> None:
        teacher = HostedTeacher(endpoint, "m", timeout=5)
        assert (await asked(teacher, requests[0])).startswith("retry, billed: True: connection")
        await teacher.close()

    with_server(answer, use)


@pytest.mark.slow
def test_a_doubled_reply_reaches_nobody_else_however_many_ask(requests: list[Request]) -> None:
    """Every fifth reply comes twice. The reply to the next request on that connection then waits in it: whoever took
    the connection would get it for his own."""
    answered = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        while True:
            try:
                body = json.loads(await body_of(reader))
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                return
            answered += 1
            reply = completion(f"{hash(body['messages'][-1]['content'])}-{answered}")
            writer.write(reply * 2 if answered % 5 == 0 else reply)

    async def use(endpoint: str) -> None:
        teacher = HostedTeacher(endpoint, "m", timeout=5)
        waiting = iter(requests * 20)

        async def worker() -> None:
            for request in waiting:
                text = await asked(teacher, request)
                own = str(hash(request.messages()[-1]["content"]))
                assert text.startswith((f"{own}-", "retry, billed: True: the same response came twice")), text

        await asyncio.gather(*(worker() for _ in range(16)))
        await teacher.close()

    with_server(answer, use)
