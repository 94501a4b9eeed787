"""Images in requests: what is sent, what the id covers, what it is taken to cost; a real server reads them."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageStat

from llava.errors import DataError, SettingsError
from llava.expansion.asking.batch_files import export_batches
from llava.expansion.asking.budget import Budget, image_tokens
from llava.expansion.asking.dispatch import Outcome
from llava.expansion.asking.ledger import Ledger
from llava.expansion.asking.prices import ImageTokens, Price
from llava.expansion.asking.teaching import TeacherSettings, ask_all
from llava.expansion.asking.token_counts import TokenCounter
from llava.expansion.estimate import make_plan
from llava.expansion.job import Job, open_job
from llava.expansion.recipe.attaching import ImageForm
from llava.expansion.recipe.requests import Request
from llava.expansion.teachers import anthropic_form, gemini_form

COLOURS = {1: (255, 0, 0), 2: (0, 255, 0), 3: (0, 0, 255)}


def world(folder: Path, *, caption: str = "A plain thing.") -> Path:
    """Three images of one colour each: a small JPEG, a large JPEG, a PNG; all with the same caption."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows, images = [], []
    for number, (side, ending) in {1: (64, "jpg"), 2: (800, "jpg"), 3: (80, "png")}.items():
        name = f"{number:012d}.{ending}"
        Image.new("RGB", (side, side // 2), COLOURS[number]).save(folder / "images" / name)
        images.append({"id": number, "file_name": name, "width": side, "height": side // 2})
        rows.append({"id": number, "image_id": number, "caption": caption})
    path = folder / "captions_train2017.json"
    path.write_text(json.dumps({"images": images, "annotations": rows}))
    return path


def job(folder: Path, form: ImageForm | None = None, kinds: str = "conversation-vision", **changed: Any) -> Job:
    settings: dict[str, Any] = {
        "annotations_uri": str(folder / "captions_train2017.json"), "split": "train", "image_prefix": "", "limit": 0,
        "kinds": kinds, "expansion_recipe": "coco", "model": "seeing", "seed": 0, "blocklist_uri": "",
        "max_bad_rows": 0.0, "images_uri": str(folder / "images"), "image_form": form or ImageForm(longest_side=200),
    }  # fmt: skip
    return open_job(**{**settings, **changed})


def sent(request: Request) -> bytes:
    url = request.body()["messages"][-1]["content"][0]["image_url"]["url"]
    head, _, data = url.partition(",")
    assert head == "data:image/jpeg;base64"
    return base64.b64decode(data)


def ids(one: Job) -> list[str]:
    return [request.id for request in one.requests()]


def test_a_small_jpeg_travels_as_it_is_and_others_are_scaled_and_converted(tmp_path: Path) -> None:
    world(tmp_path)
    small, large, png = job(tmp_path).requests()
    assert sent(small) == (tmp_path / "images/000000000001.jpg").read_bytes()
    assert Image.open(io.BytesIO(sent(large))).size == (200, 100)
    assert Image.open(io.BytesIO(sent(png))).size == (80, 40)
    text = large.body()["messages"][-1]["content"][1]
    assert text == {"type": "text", "text": "A plain thing."} and large.text_body()["messages"][-1]["content"]


def test_metadata_of_a_photo_stays_at_home(tmp_path: Path) -> None:
    world(tmp_path)
    exif = Image.Exif()
    exif[0x013B] = "the photographer"
    path = tmp_path / "images/000000000001.jpg"
    Image.new("RGB", (64, 32), COLOURS[1]).save(path, exif=exif)
    assert b"photographer" in path.read_bytes()
    assert b"photographer" not in sent(next(job(tmp_path).requests()))


def test_an_id_covers_the_image_and_what_was_done_to_it(tmp_path: Path) -> None:
    world(tmp_path)
    before = ids(job(tmp_path))
    assert len(set(before)) == 3  # one caption, three images
    assert ids(job(tmp_path, ImageForm(longest_side=200, quality=84)))[0] == before[0]  # sent as it is
    changed = ids(job(tmp_path, ImageForm(longest_side=200, quality=84)))
    assert changed[1:] != before[1:] and changed[1] != before[1] and changed[2] != before[2]
    assert ids(job(tmp_path, ImageForm(longest_side=100)))[1] != before[1]
    Image.new("RGB", (64, 32), (9, 9, 9)).save(tmp_path / "images/000000000001.jpg")
    assert ids(job(tmp_path))[0] != before[0] and ids(job(tmp_path))[1:] == before[1:]


def test_addresses_are_sent_and_are_no_part_of_the_id(tmp_path: Path) -> None:
    world(tmp_path)
    one, other = (job(tmp_path, ImageForm(url_prefix=f"https://images.example/{n}/")) for n in (1, 2))
    assert ids(one) == ids(other)
    url = next(one.requests()).body()["messages"][-1]["content"][0]["image_url"]["url"]
    assert url == "https://images.example/1/000000000001.jpg"


def test_an_image_that_changes_under_way_or_is_broken_is_said(tmp_path: Path) -> None:
    world(tmp_path)
    first = next(job(tmp_path).requests())
    (tmp_path / "images/000000000001.jpg").write_bytes((tmp_path / "images/000000000002.jpg").read_bytes())
    with pytest.raises(DataError, match="has changed since the run began"):
        first.body()
    (tmp_path / "images/000000000003.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="1 of 3 images cannot be used"):
        job(tmp_path)
    assert len(ids(job(tmp_path, max_bad_rows=0.5))) == 2
    with pytest.raises(SettingsError, match="images_uri: empty"):
        job(tmp_path, images_uri="")


def test_the_other_providers_forms_hold_the_same_bytes(tmp_path: Path) -> None:
    world(tmp_path)
    request = list(job(tmp_path).requests())[1]
    block = anthropic_form.params_of(request.body())["messages"][-1]["content"][0]
    assert block["source"]["media_type"] == "image/jpeg" and base64.b64decode(block["source"]["data"]) == sent(request)
    part = gemini_form.request_of(request.body())["contents"][-1]["parts"][0]["inlineData"]
    assert part["mimeType"] == "image/jpeg" and base64.b64decode(part["data"]) == sent(request)


def test_image_tokens_are_in_plan_and_budget(tmp_path: Path) -> None:
    world(tmp_path)
    price = Price(input=1.0, output=1.0, image=ImageTokens(size=10, base=3))
    one = job(tmp_path)
    # 64 x 32, 200 x 100 and 80 x 40 pixels in squares of 10: 7*4, 20*10 and 8*4, and 3 for each
    assert [image_tokens(price, request) for request in one.requests()] == [31, 203, 35]
    plan = make_plan(one, TokenCounter(""), None, price)
    assert plan.kinds[0].image_tokens == 31 + 203 + 35
    small, large, _ = one.requests()
    budget = Budget(price, 0.0, 0.0)
    assert (budget.worst(large) - budget.worst(small)) * 1e6 == pytest.approx(172 * 1.1, abs=1.5)


@pytest.fixture
def eyes() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that sees: it decodes the image it is sent and answers with its mean colour."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None: ...

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body)
            url = body["messages"][-1]["content"][0]["image_url"]["url"]
            with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
                red, green, blue = ImageStat.Stat(image.convert("RGB")).mean
                colour = max((red, "red"), (green, "green"), (blue, "blue"))[1]
            text = f"Question:\nWhat color is it?\n===\nAnswer:\nIt is {colour}.\n===\nQuestion:\nIs it big?\n===\n" \
                f"Answer:\nNo, the {colour} thing is small."  # fmt: skip
            usage = {"prompt_tokens": 900, "completion_tokens": 20}
            choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            data = json.dumps({"id": str(len(asked)), "model": "seeing", "choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


def test_a_teacher_that_sees_answers_about_each_image_once(tmp_path: Path, eyes: tuple[str, list[Any]]) -> None:
    world(tmp_path)
    endpoint, asked = eyes
    settings = TeacherSettings("openai", endpoint, "seeing")
    one = job(tmp_path)

    def run() -> Outcome:
        ledger = Ledger(str(tmp_path / "ledger"))
        try:
            outcome = ask_all(
                one.requests(), settings, ledger, unusable=lambda kind, reply: "", progress=lambda o: None
            )
            texts = [entry.text for request in one.requests() if (entry := ledger.get(request.id))]
        finally:
            ledger.close()
        assert ["red" in texts[0], "green" in texts[1], "blue" in texts[2]] == [True] * 3
        return outcome

    assert run().answered == 3 and len(asked) == 3
    assert run().answered == 0 and len(asked) == 3  # nothing is asked twice


def test_a_budget_needs_to_know_what_an_image_takes(tmp_path: Path, eyes: tuple[str, list[Any]]) -> None:
    world(tmp_path)
    table = tmp_path / "prices.yaml"
    table.write_text("models: {seeing: {input: 1, output: 1}}")
    settings = TeacherSettings("openai", eyes[0], "seeing", prices=str(table), max_cost=5.0)
    ledger = Ledger(str(tmp_path / "ledger"))
    with pytest.raises(SettingsError, match="how many tokens 'seeing' takes for an image"):
        ask_all(job(tmp_path).requests(), settings, ledger, unusable=lambda kind, reply: "", progress=lambda o: None)
    ledger.close()
    assert not eyes[1]


def test_batch_files_hold_the_image(tmp_path: Path) -> None:
    world(tmp_path)
    ledger = Ledger(str(tmp_path / "ledger"))
    ((uri, number, _),) = export_batches(job(tmp_path).requests(), ledger, str(tmp_path / "b"), lambda kind, reply: "")
    ledger.close()
    lines = [json.loads(line) for line in Path(uri).read_text().splitlines()]
    assert number == 3
    for line, request in zip(lines, job(tmp_path).requests(), strict=True):
        assert (
            line["body"]["messages"][-1]["content"][0]["image_url"]["url"].partition(",")[2]
            == base64.b64encode(sent(request)).decode()
        )
