"""An endpoint as an engine: what is sent, what a refusal is, and what is left when it goes away."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from llava.errors import SettingsError
from llava.evaluation.engines.base import Asked, Refusal
from llava.evaluation.engines.endpoint import Endpoint, EndpointGone
from llava.retrying import Pauses
from tests.evaluation.chat_server import ChatServer, serving

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8))
QUICK = Pauses(first=0.01, longest=0.02)


def endpoint(server: ChatServer, model: str = "", concurrency: int = 2) -> Endpoint:
    return Endpoint(server.url, model, concurrency=concurrency, blank_colour=(1, 2, 3), pauses=QUICK)


def take(engine: Endpoint, requests: list[Asked], found: dict[int, str | Refusal]) -> None:
    for part in engine.answers(requests, 8):
        found |= part


def test_the_request_is_openai_s_and_the_pixels_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-for-tests")
    seen: list[Image.Image] = []

    def say(text: str, images: list[Image.Image]) -> str:
        seen.extend(images)
        return f" {text}! "

    with serving(ChatServer(say)) as server:
        engine = endpoint(server)
        found = {
            k: v
            for part in engine.answers([Asked("What?", [NOISE]), Asked("No image", [])], 16)
            for k, v in part.items()
        }
    assert found == {0: "What?!", 1: "No image!"}
    [image] = seen
    assert np.array_equal(np.asarray(image), np.asarray(NOISE))
    body = next(body for body in server.bodies if len(body["messages"][0]["content"]) == 2)
    assert body["model"] == "tuned" and body["temperature"] == 0 and body["max_tokens"] == 16
    assert [part["type"] for part in body["messages"][0]["content"]] == ["image_url", "text"]
    assert body["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert server.keys == ["Bearer sk-a-key-for-tests"] * 2


def test_a_request_that_is_refused_is_not_asked_again_and_the_rest_go_on() -> None:
    def say(text: str, images: list[Image.Image]) -> str | tuple[int, str]:
        return (400, "this model's maximum context length is 4096 tokens") if text == "long" else "ok"

    with serving(ChatServer(say)) as server:
        requests = [Asked("a", []), Asked("long", []), Asked("b", [])]
        found = {k: v for part in endpoint(server).answers(requests, 8) for k, v in part.items()}
    assert found == {0: "ok", 1: Refusal("400: this model's maximum context length is 4096 tokens"), 2: "ok"}
    assert sorted(server.texts()) == ["a", "b", "long"]


def test_a_busy_server_is_asked_again() -> None:
    asked: list[str] = []

    def say(text: str, images: list[Image.Image]) -> str | tuple[int, str]:
        asked.append(text)
        return (429, "slow down") if asked.count(text) < 3 else "ok"

    with serving(ChatServer(say)) as server:
        found = {k: v for part in endpoint(server).answers([Asked("a", [])], 8) for k, v in part.items()}
    assert found == {0: "ok"} and asked == ["a"] * 3


def test_what_came_before_the_end_is_yielded_and_then_the_end_is_told() -> None:
    found: dict[int, str | Refusal] = {}
    with serving(ChatServer(lambda text, images: text, most=5)) as server:
        engine = endpoint(server)
        with pytest.raises(EndpointGone, match="503: going down.*run the same again") as caught:
            take(engine, [Asked(str(k), []) for k in range(40)], found)
        assert "kept" in str(caught.value)
        assert found == {int(text): text for text in server.texts()} and len(found) == 5
        server.most = None  # it is back: the same engine goes on
        again = {k: v for part in engine.answers([Asked("x", [])], 8) for k, v in part.items()}
    assert again == {0: "x"}


@pytest.mark.parametrize("reply", ["", "{}", '{"choices": []}', '{"choices": [{"message": "x"}]}', "<html>"])
def test_a_reply_of_another_form_is_not_taken_for_an_answer(reply: str) -> None:
    with (
        serving(ChatServer(lambda text, images: (200, reply))) as server,
        pytest.raises(EndpointGone, match=r"without choices\[0\]"),
    ):
        list(endpoint(server).answers([Asked("a", [])], 8))


def test_wrong_settings_are_told_before_anything_is_asked() -> None:
    with pytest.raises(SettingsError, match="endpoint: found 'localhost:8000'; expected a base URL"):
        Endpoint("localhost:8000", "", concurrency=1, blank_colour=(0, 0, 0))
    with serving(ChatServer(lambda text, images: (401, "no key"), models=["a", "b"])) as server:
        with pytest.raises(SettingsError, match=r"endpoint_model: none given; expected one of .*\['a', 'b'\]"):
            endpoint(server)
        with pytest.raises(SettingsError, match="endpoint_model: found 'c'"):
            endpoint(server, "c")
        with pytest.raises(SettingsError, match="answered 401: no key; expected .*OPENAI_API_KEY"):
            list(endpoint(server, "b").answers([Asked("a", [])], 8))
        assert len(server.bodies) == 1
    with pytest.raises(EndpointGone, match="is gone"):
        endpoint(server)
