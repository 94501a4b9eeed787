"""`llava serve` over real HTTP: OpenAI's own client, streams, what is refused, many at once, figures."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.test_chat import expected, picture_of
from tests.conftest import TinyWorld
from tests.hub_model import HubModel
from tests.inference.conftest import Running

pytestmark = pytest.mark.slow


def data_uri(path: str) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(Path(path).read_bytes()).decode()


def asked(url: str, text: str) -> list[dict[str, Any]]:
    return [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}],
        }
    ]


def test_openais_client_gets_the_stock_answer(server: Running, hub_model: HubModel, tiny_world: TinyWorld) -> None:
    image = picture_of(tiny_world)
    client = OpenAI(base_url=f"{server.url}/v1", api_key="any")
    assert [model.id for model in client.models.list()] == ["tiny"]
    messages: Any = asked(data_uri(image), "Where is it?")
    answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=9)
    [said] = expected(hub_model.model, image, ["Where is it?"], 9)
    assert answer.choices[0].message.content == said
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None and answer.usage.completion_tokens == 9
    assert answer.usage.prompt_tokens > 16, "visual tokens are counted"

    chunks = list(
        client.chat.completions.create(
            model="tiny", messages=messages, max_tokens=9, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.strip() == said
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["length"]
    assert chunks[-1].usage == answer.usage

    follow: Any = [*messages, {"role": "assistant", "content": said}, {"role": "user", "content": "And what is it?"}]
    second = client.chat.completions.create(model="tiny", messages=follow, max_tokens=9)
    assert (
        second.choices[0].message.content == expected(hub_model.model, image, ["Where is it?", "And what is it?"], 9)[1]
    )


def test_a_seed_draws_the_same_answer_whatever_stands_beside_it(server: Running, tiny_world: TinyWorld) -> None:
    url = data_uri(picture_of(tiny_world))

    def one(seed: int) -> str:
        body = {"messages": asked(url, "Where?"), "max_tokens": 12, "temperature": 1.5, "seed": seed}
        return str(post(server, body).json()["choices"][0]["message"]["content"])

    alone = [one(3), one(4)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(one, [3, 4, 3, 4, 5, 6, 3, 4]))
    assert together[:4] == alone * 2 and together[6:] == alone
    assert len({*together}) > 2, "other seeds draw others"


def test_many_at_once_share_batches_and_get_their_own_answer(server: Running, tiny_world: TinyWorld) -> None:
    images = [data_uri(picture_of(tiny_world, number)) for number in range(6)]

    def one(url: str) -> str:
        return str(post(server, {"messages": asked(url, "What?"), "max_tokens": 8}).json()["choices"][0]["message"])

    before = figures(server)
    with ThreadPoolExecutor(24) as pool:
        together = list(pool.map(one, images * 4))
    after = figures(server)
    assert together == [one(url) for url in images] * 4
    answered = after[("llava_serve_requests_total", "200")] - before.get(("llava_serve_requests_total", "200"), 0)
    assert answered == 24
    assert after[("llava_serve_batches", "")] - before[("llava_serve_batches", "")] < 20, "requests share batches"


def test_a_stop_text_ends_the_answer(server: Running, tiny_world: TinyWorld) -> None:
    url = data_uri(picture_of(tiny_world))
    whole = post(server, {"messages": asked(url, "What?"), "max_tokens": 20}).json()["choices"][0]["message"]["content"]
    stop = whole[len(whole) // 2 :][:2]
    body = {"messages": asked(url, "What?"), "max_tokens": 20, "stop": [stop]}
    answer = post(server, body).json()["choices"][0]
    assert answer["message"]["content"] == whole.partition(stop)[0].strip() and answer["finish_reason"] == "stop"


PIXEL = io.BytesIO()
Image.new("RGB", (4, 4)).save(PIXEL, "PNG")
GOOD = "data:image/png;base64," + base64.b64encode(PIXEL.getvalue()).decode()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user"}]}, 400, "content"),
        ({"messages": asked(GOOD, "q"), "model": "gpt-4o"}, 404, "this server has 'tiny'"),
        ({"messages": asked("https://example.org/cat.jpg", "q")}, 400, "fetches nothing"),
        ({"messages": asked("http://127.0.0.1/latest/meta-data", "q")}, 400, "fetches nothing"),
        ({"messages": asked("file:///etc/passwd", "q")}, 400, "messages.0.content"),
        ({"messages": asked("../../../../etc/passwd", "q")}, 400, "messages.0.content"),
        ({"messages": asked("/etc/passwd", "q")}, 400, "messages.0.content"),
        ({"messages": asked("text.jpg", "q")}, 400, "text.jpg"),
        ({"messages": asked("data:image/png;base64,AAAA", "q")}, 400, "messages.0.content"),
        ({"messages": asked("data:image/png;base64,%%%", "q")}, 400, "messages.0.content"),
        ({"messages": asked("data:image/png,raw", "q")}, 400, "base64"),
        ({"messages": asked(GOOD, "<image> q")}, 400, "<image>"),
        ({"messages": asked(GOOD, "q"), "temperature": -1}, 400, "temperature"),
        ({"messages": asked(GOOD, "q"), "n": 2}, 400, "n"),
        ({"messages": asked(GOOD, "q"), "tools": [{}]}, 400, "tools"),
        ({"messages": asked(GOOD, "q"), "logprobs": True}, 400, "logprobs"),
        ({"messages": asked(GOOD, "word " * 2000)}, 400, "room for"),
        ({"messages": [{"role": "assistant", "content": asked(GOOD, "q")[0]["content"]}]}, 400, "assistant"),
        ([], 400, "body"),
    ],
)
def test_what_cannot_be_answered_is_said(server: Running, body: Any, status: int, said: str) -> None:
    for stream in (False, True):
        answer = post(server, {**body, "stream": stream} if isinstance(body, dict) else body)
        error = answer.json()["error"]
        assert answer.status_code == status, error
        assert said in error["message"] and error["code"]


def test_bodies_that_are_no_json_or_too_long(server: Running) -> None:
    assert httpx.post(f"{server.url}/v1/chat/completions", content=b"{").status_code == 400
    assert httpx.post(f"{server.url}/v1/chat/completions", content=b"[" * 5000).status_code == 400
    long = b'{"messages": "' + b"x" * (33 << 20)
    assert httpx.post(f"{server.url}/v1/chat/completions", content=long, timeout=60).status_code == 413
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}


def test_who_stops_listening_leaves_the_server_well(server: Running, tiny_world: TinyWorld) -> None:
    body = {"messages": asked(data_uri(picture_of(tiny_world)), "What?"), "stream": True}
    for _ in range(3):
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as answer:
            next(answer.iter_text())
    assert post(server, {**body, "stream": False}).status_code == 200


def post(server: Running, body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/chat/completions", content=json.dumps(body), timeout=120)


def figures(server: Running) -> dict[tuple[str, str], float]:
    text = httpx.get(f"{server.url}/metrics").text
    return {
        (sample.name, sample.labels.get("status", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
