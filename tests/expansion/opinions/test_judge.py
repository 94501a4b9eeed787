"""A judge that sees: what it is shown, what its scores do to rows, what it costs, and that nothing is asked twice."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageStat

from llava.errors import DataError, SettingsError
from llava.expansion.opinions.agreement import KEPT, Agreement
from llava.expansion.opinions.judge import read_score, unusable_score
from llava.expansion.opinions.thresholds import read_thresholds
from llava.expansion.teachers.base import Reply, Usage
from llava.stages.expand import STAGE, Inputs, Outputs
from llava.stages.expand_settings import Settings

COLOURS = {"red": (200, 10, 10), "green": (10, 200, 10), "blue": (10, 10, 200)}
IMAGES = 12  # a third of each colour


@dataclass
class Endpoint:
    """A teacher that is blind and always says red, and a judge that looks."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    judged: list[dict[str, Any]] = field(default_factory=list)
    mute: bool = False

    def answer(self, body: dict[str, Any]) -> str:
        if body["model"] != "judge":
            self.asked.append(body)
            known = body["messages"][-1]["content"].strip().rstrip(".").lower()
            first = f"Question:\nWhat color is {known}?\n===\nAnswer:\nThe thing in {known} is red."
            return f"{first}\n===\nQuestion:\nWhat else?\n===\nAnswer:\nNothing but {known}."
        self.judged.append(body)
        if self.mute:
            return "I would rather not say."
        image, text = body["messages"][-1]["content"]
        with Image.open(io.BytesIO(base64.b64decode(image["image_url"]["url"].partition(",")[2]))) as opened:
            mean = ImageStat.Stat(opened.convert("RGB")).mean
        colour = max(COLOURS, key=lambda name: mean[list(COLOURS).index(name)])
        said = text["text"].partition("\n\n---\n")[2]
        return f"The thing is {colour}.\n**Score: {5 if colour in said else 2}**"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    found = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None: ...

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            choice = {"message": {"role": "assistant", "content": found.answer(body)}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 400, "completion_tokens": 20}
            number = f"x{len(found.asked)}-{len(found.judged)}"
            data = json.dumps({"id": number, "model": body["model"], "choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


def expand(folder: Path, endpoint: Endpoint, **settings: Any) -> dict[str, float]:
    images = folder / "images"
    if not images.exists():
        images.mkdir(parents=True)
        rows = []
        for k, colour in enumerate([*COLOURS] * (IMAGES // 3), 1):
            Image.new("RGB", (40, 30), COLOURS[colour]).save(images / f"{k:03d}.png")
            rows.append({"image": f"{k:03d}.png", "caption": f"Scene number {k}."})
        (folder / "captions.json").write_text(json.dumps(rows))
    given = {
        "annotations_uri": str(folder / "captions.json"), "images_uri": str(images), "kinds": "conversation",
        "teacher": "openai", "teacher_endpoint": endpoint.url, "teacher_model": "teacher", "max_dropped": 1.0,
        "judge_model": "judge", "judge_images": True, **settings,
    }  # fmt: skip
    out = folder / "out"
    names = {"pretrain_data": "pretrain.json", "instruct_data": "i.json", "report": "report.html", "metrics": "m"}
    outputs = Outputs(**{name: str(out / file) for name, file in names.items()})
    return STAGE.run(Settings(**given), Inputs(), outputs).metrics


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def test_a_judge_that_sees_drops_what_the_text_gates_cannot_know(tmp_path: Path, endpoint: Endpoint) -> None:
    metrics = expand(tmp_path, endpoint, judge_rows="all")
    assert len(endpoint.asked) == len(endpoint.judged) == IMAGES
    kept = lines(tmp_path / "out/i.json.provenance.jsonl")
    dropped = lines(tmp_path / "out/i.json.dropped.jsonl")
    red = {f"{k:03d}.png" for k in range(1, IMAGES + 1, 3)}
    assert {line["image"] for line in kept} == red == {row["image"] for row in json.loads(
        (tmp_path / "out/i.json").read_text())}  # fmt: skip
    assert all(line["scores"] == {"judge": 5.0} and line["gates"]["judge"] == "passed" for line in kept)
    assert len(dropped) == IMAGES - len(red)
    assert {(line["gate"], line["reason"]) for line in dropped} == {("judge", "score 2, and 3 is the least")}
    assert metrics["dropped_judge"] == 8 and metrics["judged"] == 12 and metrics["judge_unscored"] == 0
    assert metrics["judge_agreement"] == pytest.approx(4 / 12) and metrics["judge_score_conversation"] == 3.0
    card = (tmp_path / "out/i.json.card.md").read_text()
    assert "A judge (judge, which saw the images) agreed with the gates on 33% of 12 replies" in card
    report = (tmp_path / "out/report.html").read_text()
    assert "judge saw each image" in report and "score 2, and 3 is the least" in report

    # A lower threshold takes the rows back, for nothing.
    again = expand(tmp_path, endpoint, judge_rows="all", judge_threshold="5,conversation=2")
    assert again["rows_instruct"] == IMAGES and again["dropped"] == 0
    assert len(endpoint.asked) == len(endpoint.judged) == IMAGES


def test_a_sample_changes_no_row(tmp_path: Path, endpoint: Endpoint) -> None:
    metrics = expand(tmp_path, endpoint, judge_sample=6)
    assert metrics["rows_instruct"] == IMAGES and metrics["judged"] == 6 == len(endpoint.judged)
    # An image and what the teacher was told come before what it wrote.
    image, text = endpoint.judged[0]["messages"][-1]["content"]
    assert image["type"] == "image_url" and text["text"].startswith("Scene number")


@pytest.mark.slow
def test_rows_without_a_score_stay_and_are_counted(tmp_path: Path, endpoint: Endpoint) -> None:
    endpoint.mute = True
    metrics = expand(tmp_path, endpoint, judge_rows="all", max_unusable=1.0, max_repairs=1)
    assert metrics["rows_instruct"] == IMAGES and metrics["judge_unscored"] == IMAGES and metrics["judged"] == 0
    assert len(endpoint.judged) == 2 * IMAGES  # once, and once again with a note


@pytest.mark.slow
def test_a_judges_budget_is_its_own_or_what_the_teacher_leaves(tmp_path: Path, endpoint: Endpoint) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text(
        "models:\n  teacher: {input: 1, output: 1}\n  judge: {input: 1000, output: 1000, image: {size: 28, base: 4}}\n"
    )
    paid = {"judge_rows": "all", "prices": str(prices), "concurrency": 1}
    with pytest.raises(DataError, match=r"judge: .*judge_max_cost"):
        expand(tmp_path, endpoint, **paid, judge_max_cost=2.0)
    spent = len(endpoint.judged) * 0.42
    assert 0 < spent <= 2.0 and len(endpoint.asked) == IMAGES
    # Without one of its own the teacher's holds for both together.
    with pytest.raises(DataError, match="judge: "):
        expand(tmp_path / "shared", endpoint, **paid, max_cost=1.0)
    assert (len(endpoint.judged) * 0.42 - spent) + IMAGES * 420e-6 <= 1.0
    metrics = expand(tmp_path, endpoint, **paid, judge_max_cost=2.0, allow_partial=True)
    assert metrics["rows_instruct"] + metrics.get("dropped_judge", 0) == IMAGES and metrics["judge_unscored"] > 0
    assert metrics["judge_cost"] == pytest.approx(spent) and metrics["cost"] == pytest.approx(spent + IMAGES * 420e-6)


def test_kappa_is_cohens() -> None:
    """The worked example of Cohen's kappa: 20 and 15 agreed, 5 and 10 not, of 50: 0.4."""
    found = Agreement()
    for gate, good, times in [(KEPT, True, 20), (KEPT, False, 5), ("counts", True, 10), ("sides", False, 15)]:
        for _ in range(times):
            found.add("detail", gate, 4.0 if good else 1.0, good=good)
    assert found.kappa == pytest.approx(0.4) and found.rate == pytest.approx(0.7) and found.judged == 50
    assert found.gates == [KEPT, "counts", "sides"] and found.mean_score("detail") == pytest.approx(85 / 25)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Fine.\nScore: 4", 4.0), ("Fine.\n**Score:** 3.5", 3.5), ("score: 5/5", 5.0), ("Score: 4.", 4.0),
        ("Verdict: bad", 1.0), ("**Verdict: good**", 5.0),
        ("Score: 7", None), ("The score: 4 of them", None), ("Score: 45", None), ("", None),
    ],
)  # fmt: skip
def test_a_score_is_read_where_it_was_asked_for(text: str, score: float | None) -> None:
    assert read_score(text) == score
    assert bool(unusable_score("judge", Reply(text, "stop", "judge", Usage()))) is (score is None)


@pytest.mark.parametrize(
    ("text", "message"),
    [("6", "expected a number from 1 to 5"), ("detal=3", "did you mean detail"), ("nan", "found 'nan'"), ("a", "'a'")],
)
def test_thresholds_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_thresholds("judge_threshold", text, ["detail"], default=3, low=1, high=5)


def test_a_judge_that_cannot_be_is_refused_before_anything_is_paid(tmp_path: Path, endpoint: Endpoint) -> None:
    with pytest.raises(SettingsError, match="images_uri: empty; .*the judge"):
        expand(tmp_path, endpoint, judge_rows="all", images_uri="")
    with pytest.raises(SettingsError, match="the offline teacher cannot judge"):
        expand(tmp_path, endpoint, judge_rows="all", teacher="offline", judge_model="")
    with pytest.raises(SettingsError, match="judge_threshold"):
        expand(tmp_path, endpoint, judge_rows="all", judge_threshold="detail=9")
    assert endpoint.asked == []
