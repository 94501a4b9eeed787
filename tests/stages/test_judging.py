"""A judge over finished predictions: a real endpoint that answers, refuses, talks nonsense or dies; batch files too."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.cli import main
from llava.errors import DataError, SettingsError
from llava.expansion.asking.limits import Limits
from llava.expansion.asking.teaching import TeacherSettings
from llava.stages.evaluate import Inputs, Outputs, Settings, run
from llava.stages.judging import Judging, export_judge_batch, import_judge_batch, judge_online, open_judging
from llava.telemetry import Telemetry
from tests.hub_model import HubModel


class Judge:
    """An OpenAI-compatible server whose replies a test decides: a text, or a status."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answered: list[str] = []  # what got a reply that is paid for
        self.reply: Callable[[str], str | int] = lambda text: "0.5"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(body)
                said = outer.reply(body["messages"][-1]["content"])
                message = {"role": "assistant", "content": said}
                answer: dict[str, Any] = {"error": {"message": "no"}}
                if isinstance(said, str):
                    outer.answered.append(body["messages"][-1]["content"])
                    choice = {"index": 0, "message": message, "finish_reason": "stop"}
                    usage = {"prompt_tokens": 900, "completion_tokens": 5, "total_tokens": 905}
                    answer = {"id": f"x{len(outer.asked)}", "object": "chat.completion", "model": "judge-0613"}
                    answer |= {"choices": [choice], "usage": usage}
                data = json.dumps(answer).encode()
                self.send_response(200 if isinstance(said, str) else said)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def settings(self, **more: Any) -> TeacherSettings:
        limits = Limits(concurrency=4, retries=1, repairs=1, max_unusable=1.0, first_pause=0.01, consecutive_failures=4)
        endpoint = f"http://127.0.0.1:{self.server.server_port}/v1"
        return TeacherSettings("openai", endpoint, "judge", limits=limits, **more)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Judge]:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    made = Judge()
    yield made
    made.server.shutdown()
    made.server.server_close()


SKILLS = [["ocr"], ["ocr", "math"], ["rec"], ["math"]]


def mmvet(tmp_path: Path) -> tuple[str, str]:
    """MM-Vet in LLaVA-1.5's layout with four questions, and a model's predictions."""
    folder = tmp_path / "mm-vet"
    folder.mkdir()
    rows = {
        f"v1_{k}": {
            "imagename": f"v1_{k}.png",
            "question": f"What is {k}?",
            "answer": f"{k}<AND>x",
            "capability": skills,
        }
        for k, skills in enumerate(SKILLS)
    }
    (folder / "mm-vet.json").write_text(json.dumps(rows))
    asked = [{"image": f"v1_{k}.png", "text": f"What is {k}?", "category": "conv", "question_id": k} for k in range(4)]
    (folder / "llava-mm-vet.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    lines = [json.dumps({"id": f"v1_{k}", "answer": f"It is {k}."}) + "\n" for k in range(4)]
    (predictions / "finetuned.jsonl").write_text("".join(lines))
    return str(folder), str(predictions)


def opened(tmp_path: Path, settings: TeacherSettings, **more: Any) -> Judging:
    folder, predictions = mmvet(tmp_path) if not (tmp_path / "mm-vet").exists() else (
        str(tmp_path / "mm-vet"), str(tmp_path / "predictions"))  # fmt: skip
    return open_judging("mm-vet", folder, predictions, settings, **more)


def test_mm_vet_is_asked_as_its_evaluator_asks_and_scored_by_capability(tmp_path: Path, judge: Judge) -> None:
    judge.reply = lambda text: {"0": "1.0", "1": "0.4", "2": "0.0", "3": "0.2"}[text.rsplit("What is ", 1)[1][0]]
    judging = opened(tmp_path, judge.settings())
    with Telemetry("evaluate", "test") as telemetry:
        figures = judge_online(judging, telemetry)
        again = judge_online(opened(tmp_path, judge.settings()), telemetry)
    assert len(judge.asked) == 4 and again["score"] == figures["score"] == pytest.approx((1 + 0.4 + 0 + 0.2) / 4)
    assert figures["score_ocr"] == pytest.approx(0.7) and figures["score_math"] == pytest.approx(0.3)
    [first] = [body for body in judge.asked if "What is 0?" in body["messages"][-1]["content"]]
    text = first["messages"][-1]["content"]
    assert text.startswith("Compare the ground truth and prediction from AI models, to give a correctness score")
    # prompt, a line break, and the four cells as the evaluator joins them
    assert text.endswith(" | 1.0\n\nWhat is 0? | 0 <AND> x | It is 0. | ") and first["temperature"] == 0.0
    kept = json.loads((tmp_path / "predictions/finetuned-verdicts.json").read_text())
    assert kept["judges"] == {"judge-0613": 4} and len(kept["date"]) == 10 and kept["published_judge"] == "gpt-4-0613"


def test_a_judge_that_refuses_is_named_and_nothing_becomes_zero(tmp_path: Path, judge: Judge) -> None:
    judge.reply = lambda text: "I cannot judge this." if "What is 2?" in text else "1.0"
    with Telemetry("evaluate", "test") as telemetry:
        with pytest.raises(DataError, match="1 of 4 answers have no verdict .*no score in the reply.*the first: v1_2"):
            judge_online(opened(tmp_path, judge.settings()), telemetry)
        paid = len(judge.asked)
        figures = judge_online(opened(tmp_path, judge.settings(), max_unjudged=0.3), telemetry)
    assert 5 <= paid <= 6 and len(judge.asked) == paid  # asked again within the limits; then nothing is paid for twice
    assert figures["score"] == 1.0 and figures["judged"] == 3 and figures["unjudged"] == 1


def test_an_endpoint_that_dies_half_way_loses_nothing(tmp_path: Path, judge: Judge) -> None:
    judge.reply = lambda text: 503 if "What is 2?" in text or "What is 3?" in text else "0.5"
    settings = judge.settings()
    with Telemetry("evaluate", "test") as telemetry:
        with pytest.raises(DataError):
            judge_online(opened(tmp_path, settings), telemetry)
        judge.reply = lambda text: "0.5"
        assert judge_online(opened(tmp_path, settings), telemetry)["score"] == 0.5
    asked = [text.rsplit("What is ", 1)[1][0] for text in judge.answered]
    assert sorted(asked) == ["0", "1", "2", "3"]  # each is paid for once


def test_a_budget_is_kept(tmp_path: Path, judge: Judge) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("currency: USD\nmodels:\n  - {match: [judge], input: 1000.0, output: 1000.0}\n")
    with Telemetry("evaluate", "test") as telemetry, pytest.raises((DataError, SettingsError)) as caught:
        judge_online(opened(tmp_path, judge.settings(prices=str(prices), max_cost=0.001)), telemetry)
    assert judge.asked == [], str(caught.value)


def test_batch_files_give_the_same_figures(tmp_path: Path) -> None:
    judging = opened(tmp_path, TeacherSettings("openai", "", "judge"))
    [(uri, count, _)] = export_judge_batch(judging, str(tmp_path / "batch"))
    assert count == 4
    answers = []
    for line in Path(uri).read_text().splitlines():
        row = json.loads(line)
        assert row["url"] == "/v1/chat/completions" and row["body"]["model"] == "judge"
        choice = {"index": 0, "message": {"role": "assistant", "content": "0.3"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 9, "completion_tokens": 3}
        body = {
            "id": row["custom_id"],
            "object": "chat.completion",
            "model": "judge-0613",
            "choices": [choice],
            "usage": usage,
        }
        answers.append({"custom_id": row["custom_id"], "response": {"status_code": 200, "body": body}, "error": None})
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    with Telemetry("evaluate", "test") as telemetry:
        figures = import_judge_batch(opened(tmp_path, judging.judge), [str(file)], telemetry)
    assert figures["score"] == pytest.approx(0.3) and figures["judged"] == 4


def test_llava_bench_compares_with_gpt4s_answers(tmp_path: Path, judge: Judge) -> None:
    folder = tmp_path / "wild"
    folder.mkdir()
    asked = [
        {"question_id": k, "image": "001.jpg", "text": f"Question {k}?", "category": category}
        for k, category in enumerate(["conv", "detail", "complex"])
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    (folder / "context.jsonl").write_text(json.dumps({"id": "001", "image": "001.jpg", "caption": "A photo."}) + "\n")
    gold = [{"question_id": k, "text": f"Gold {k}.", "answer_id": "x"} for k in range(3)]
    (folder / "answers_gpt4.jsonl").write_text("".join(json.dumps(row) + "\n" for row in gold))
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"id": str(k), "answer": f"Mine {k}."}) + "\n" for k in range(3)))
    judge.reply = lambda text: "8 4\nBecause." if "Question 0" in text else "8, 8\nEqual."
    with Telemetry("evaluate", "test") as telemetry:
        figures = judge_online(open_judging("llava-bench", str(folder), str(file), judge.settings()), telemetry)
    assert figures["relative"] == pytest.approx(20 / 24) and figures["relative_conv"] == 0.5
    [body] = [body for body in judge.asked if "Question 0" in body["messages"][-1]["content"]]
    assert body["messages"][0]["content"].startswith("You are a helpful and precise assistant")
    assert body["messages"][-1]["content"].startswith(
        "[Context]\nA photo.\n\n[Question]\nQuestion 0?\n\n[Assistant 1]\nGold 0.\n\n[End of Assistant 1]\n\n"
        "[Assistant 2]\nMine 0.\n\n[End of Assistant 2]\n\n[System]\nWe would like to request your feedback"
    )
    assert (body["temperature"], body["max_tokens"]) == (0.2, 1024)


def test_what_is_no_judged_benchmark_or_has_no_answers_is_said(tmp_path: Path) -> None:
    folder, predictions = mmvet(tmp_path)
    settings = TeacherSettings("openai", "", "judge")
    with pytest.raises(SettingsError, match="found 'gqa'; it is scored without a judge"):
        open_judging("gqa", folder, predictions, settings)
    (tmp_path / "predictions/finetuned.jsonl").write_text('{"id": "other", "answer": "x"}\n')
    with pytest.raises(DataError, match="no answer to a question of"):
        open_judging("mm-vet", folder, predictions, settings)


def evaluated(model: Path, out: Path, suite: Path, folder: Path) -> str:
    """The page of a run of the suite; its predictions stay in `out`."""
    settings = Settings(benchmark=str(suite), questions_uri=str(folder), max_new_tokens=4, blank_baseline=False)
    outputs = Outputs(predictions=f"{out}/predictions", report=f"{out}/report.html", metrics=f"{out}/metrics")
    run(settings, Inputs(model=str(model), projector=None), outputs)
    return (out / "report.html").read_text()


def row_of(page: str, model: str) -> list[str]:
    """A row of the page's first table, the suite's."""
    body = page.split("<tbody>", 1)[1].split("</tbody>", 1)[0]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in body.split("<tr>")]
    return next(row for row in rows if row[:1] == [model])


@pytest.mark.slow
def test_verdicts_come_into_the_suite_s_table_and_are_compared(
    hub_model: HubModel, tmp_path: Path, judge: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    mmvet(tmp_path)
    for k in range(4):
        image = tmp_path / f"mm-vet/images/v1_{k}.png"
        image.parent.mkdir(exist_ok=True)
        Image.new("RGB", (24, 16), (60 * k, 200, 255 - 60 * k)).save(image)
    suite = tmp_path / "mine.yaml"
    suite.write_text(
        "title: mine\nbenchmarks:\n- {benchmark: mm-vet, title: MM-Vet, scale: 100}\n"
        "published:\n- {model: somebody, values: {mm-vet: 31.1}}\n"
    )
    page = evaluated(hub_model.model, tmp_path / "a", suite, tmp_path)
    assert row_of(page, "fine-tuned") == ["fine-tuned", "judge"] and row_of(page, "somebody") == ["somebody", "31.1"]
    places = {name: str(tmp_path / name / "predictions/mm-vet") for name in ("a", "b")}
    marks = {"0": "1.0", "1": "0.4", "2": "0.0", "3": "0.2"}
    judge.reply = lambda text: marks[text.rsplit("What is ", 1)[1][0]]

    def judged(name: str) -> None:
        judging = open_judging("mm-vet", str(tmp_path / "mm-vet"), places[name], judge.settings())
        with Telemetry("evaluate", "test") as telemetry:
            judge_online(judging, telemetry)

    judged("a")
    page = evaluated(hub_model.model, tmp_path / "a", suite, tmp_path)
    assert row_of(page, "fine-tuned") == ["fine-tuned", "40.0"] and "judged by judge-0613 on 20" in page
    # Another model answers into the same folder: the verdicts were on other answers, and are not shown with these.
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(hub_model.model, other)
    (other / "manifest.json").unlink(missing_ok=True)
    weights = {name: -value for name, value in load_file(other / "model.safetensors").items()}
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    page = evaluated(other, tmp_path / "a", suite, tmp_path)
    assert row_of(page, "fine-tuned") == ["fine-tuned", "judge"] and "judged by" not in page
    evaluated(hub_model.model, tmp_path / "a", suite, tmp_path)
    evaluated(hub_model.model, tmp_path / "b", suite, tmp_path)
    marks["2"] = "0.8"
    judged("b")
    with pytest.raises(SystemExit) as done:
        main(["compare", *(f"{name}={place}" for name, place in places.items()), "--out", str(tmp_path / "c")])
    assert done.value.code == 0 and "+0.2000" in capsys.readouterr().out
    found = json.loads((tmp_path / "c/comparison.json").read_text())["differences"][0]
    assert (found["headline"], found["wins"], found["losses"]) == ("score", 1, 0)
    assert found["value"] == pytest.approx((0.8 - 0.0) / 4)
