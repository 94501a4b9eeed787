"""Ledger, limits, plans and batch files."""

from __future__ import annotations

import asyncio
import inspect
import json
from pathlib import Path

import pytest

from llava.errors import DataError, SettingsError
from llava.expansion.asking.batch_files import export_batches, import_batches
from llava.expansion.asking.entries import Entry
from llava.expansion.asking.journal import Journal
from llava.expansion.asking.ledger import Ledger
from llava.expansion.asking.prices import FREE, Price, load_prices
from llava.expansion.asking.rate import AdaptiveGate, RateLimiter
from llava.expansion.asking.token_counts import TokenCounter
from llava.expansion.estimate import make_plan
from llava.expansion.gates.form_check import form_check
from llava.expansion.job import Job, open_job
from llava.expansion.teachers.base import Usage
from llava.expansion.teachers.offline import reply_to


def entry(name: str, status: str = "answered", attempt: int = 1, text: str = "text") -> Entry:
    return Entry(name, attempt, status, "", text, "stop", "m", Usage(10, 0, 5), 0.5, "detail")  # type: ignore[arg-type]


def test_the_ledger_keeps_everything_over_restarts(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    ledger.append([entry("a"), entry("b", "unusable")])
    ledger.append([entry("b", "answered", 2, "späte\nAntwort")])
    ledger.close()
    again = Ledger(str(tmp_path))
    assert "a" in again and again.attempts("b") == 2 and again.cost == 1.5 and again.usage == Usage(30, 0, 15)
    found = again.get("b")
    assert found is not None and found.text == "späte\nAntwort" and again.get("c") is None
    assert [one.id for one in again.entries()] == ["a", "b", "b"] and again.mean_output("detail") == 5


def test_a_torn_last_line_is_ignored_and_said(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    ledger.append([entry("a"), entry("b")])
    ledger.close()
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    again = Ledger(str(tmp_path))
    assert "a" in again and "b" not in again and "cut off" in again.notes[0]
    again.append([entry("b")])
    again.close()
    assert "b" in Ledger(str(tmp_path))


def test_a_damaged_line_is_an_error_with_its_place(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    ledger.append([entry("a"), entry("b")])
    ledger.close()
    (path,) = tmp_path.glob("*.jsonl")
    path.write_text(path.read_text().replace('"id": "a"', '"id": a'))
    with pytest.raises(DataError, match="line 1 is damaged"):
        Ledger(str(tmp_path))


def test_two_runs_cannot_share_a_ledger_at_once(tmp_path: Path) -> None:
    first = Ledger(str(tmp_path))
    with pytest.raises(SettingsError, match="another run has it open"):
        Ledger(str(tmp_path))
    first.close()
    Ledger(str(tmp_path)).close()


def test_a_flush_lingers_only_while_more_replies_can_come(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    flushes: list[int] = []
    append = ledger.append
    ledger.append = lambda records: (flushes.append(len(records)), append(records))[1]  # type: ignore[method-assign]

    async def write() -> None:
        async with Journal(ledger, linger=3600, writers=3) as journal:
            await asyncio.gather(*(journal.write(entry(name)) for name in "abc"))
            last = asyncio.create_task(journal.write(entry("d")))
            await asyncio.sleep(0)
        await last  # closing ends the lingering, too

    asyncio.run(asyncio.wait_for(write(), 60))
    assert flushes == [3, 1] and len(ledger) == 4


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def limited(
    requests: float, tokens: float, sizes: list[float], monkeypatch: pytest.MonkeyPatch, pause: float = 0
) -> float:
    """Seconds until the last of `sizes` may be sent."""
    clock = Clock()

    async def sleep(seconds: float) -> None:
        clock.now += seconds

    async def work() -> None:
        limiter = RateLimiter(requests, tokens, clock)
        if pause:
            limiter.pause(pause)
        for size in sizes:
            await limiter.acquire(size)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(work())
    return clock.now


def test_requests_and_tokens_are_limited_separately(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limited(0, 0, [1000.0] * 100, monkeypatch) == 0
    # 60 a minute is one a second, after a burst of about two seconds' worth.
    assert 95 <= limited(60, 0, [1.0] * 100, monkeypatch) <= 100
    assert 95 <= limited(0, 60_000, [1000.0] * 100, monkeypatch) <= 100
    assert 195 <= limited(60, 30_000, [1000.0] * 100, monkeypatch) <= 200


def test_a_pause_holds_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limited(0, 0, [1.0], monkeypatch, pause=7) == pytest.approx(7)


def test_concurrency_grows_and_halves_once_a_round() -> None:
    gate = AdaptiveGate(8, 32)
    for _ in range(2000):
        gate.succeeded()
    assert gate.limit == 32
    for _ in range(10):
        gate.throttled(0)
    assert gate.limit == 16
    gate.throttled(1)
    assert gate.limit == 8


def job(world: Path, kinds: str = "conversation,detail,reasoning") -> Job:
    return open_job(
        annotations_uri=str(world / "annotations"),
        split="train",
        image_prefix="",
        kinds=kinds,
        expansion_recipe="coco",
        model="m",
        limit=20,
        seed=0,
        blocklist_uri="",
        max_bad_rows=0,
    )


def test_a_plan_adds_up(world: Path, tmp_path: Path) -> None:
    work = job(world)
    counter = TokenCounter()
    plan = make_plan(work, counter, None)
    assert [kind.requests for kind in plan.kinds] == [20, 20, 20] and plan.captions == 100
    # With so few requests every context is in the sample, so that the count is exact.
    for kind, recipe in zip(plan.kinds, work.taught, strict=True):
        real = sum(counter.messages(request.body()["messages"]) for request in work.requests([recipe]))
        assert kind.requests * kind.prefix_tokens + kind.context_tokens == pytest.approx(real, abs=1)
    price = Price(input=10, cached_input=1, output=100, batch_factor=0.5)
    costs = plan.costs(price)
    usage = plan.usage(cached=False)
    assert costs["online"] == pytest.approx((usage.input * 10 + usage.output * 100) / 1e6)
    assert costs["batch file"] == costs["online"] / 2 and costs["online, prompt cache"] < costs["online"]
    assert plan.minutes(30, 0) == 2 and plan.minutes(0, 0) is None
    ledger = Ledger(str(tmp_path))
    first = next(work.requests())
    ledger.append([entry(first.id)])
    assert make_plan(work, counter, ledger).kinds[0].missing == 19


def test_a_real_tokenizer_is_used_where_one_is_known(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    counter = TokenCounter(str(tmp_path))
    assert counter.exact and counter.count("four words are here") == 4
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SettingsError, match="tokenizer"):
        TokenCounter(str(tmp_path))


def test_the_bundled_prices_load_and_dated_names_are_found() -> None:
    table = load_prices("")
    assert table.find("gpt-4o-2024-08-06") == table.models["gpt-4o"]
    assert table.find("gpt-4o-mini-2024-07-18") == table.models["gpt-4o-mini"]
    assert table.find("someone-else") is None


def test_batches_out_and_back_in(world: Path, tmp_path: Path) -> None:
    work = job(world)
    ledger = Ledger(str(tmp_path / "ledger"))
    written = export_batches(work.requests(), ledger, str(tmp_path / "out"), form_check(work.recipe), most_requests=25)
    assert [count for _, count, _ in written] == [25, 25, 10]
    lines = [json.loads(line) for uri, _, _ in written for line in Path(uri).read_text().splitlines()]
    assert [line["custom_id"] for line in lines] == [request.id for request in work.requests()]
    assert all(Path(uri).stat().st_size == size for uri, _, size in written)
    answers = []
    for number, line in enumerate(lines):
        text = reply_to(line["body"]) if number != 3 else "not of the form"
        choice = {"message": {"content": text}, "finish_reason": "stop" if number != 5 else "length"}
        body = {"choices": [choice], "model": "m-1", "usage": {"prompt_tokens": 100, "completion_tokens": 10}}
        answers.append({"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}, "error": None})
    answers[7]["response"] = {"status_code": 500, "body": {"error": {"message": "overloaded"}}}
    answers[8]["response"] = {"status_code": 400, "body": {"error": {"code": "content_filter", "message": "no"}}}
    answers.append({"custom_id": "of-somebody-else", "response": {"status_code": 200, "body": {}}})
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in answers) + "broken\n")
    price = Price(input=10, output=100)
    found = import_batches([str(path)], ledger, work.requests(), form_check(work.recipe), price)
    assert (found.answered, found.unusable, found.dropped, found.foreign, found.broken) == (56, 2, 1, 1, 1)
    assert sum(found.failed.values()) == 1
    assert ledger.cost == pytest.approx(58 * (100 * 10 + 10 * 100) / 1e6 / 2)
    again = import_batches([str(path)], ledger, work.requests(), form_check(work.recipe), price)
    assert again.answered == again.unusable == again.dropped == 0 and again.known == 59
    assert ledger.cost == pytest.approx(58 * (100 * 10 + 10 * 100) / 1e6 / 2)
    # The next export holds what is missing, and the unusable ones with the note that asks for repair.
    (uri, count, _) = export_batches(work.requests(), ledger, str(tmp_path / "next"), form_check(work.recipe))[0]
    assert count == 3 and "Write the reply again" in Path(uri).read_text()


def test_batch_files_keep_the_providers_limits_unless_told_otherwise() -> None:
    defaults = inspect.signature(export_batches).parameters
    assert defaults["most_requests"].default == 50_000 and defaults["most_bytes"].default == 200_000_000


def test_size_limits_split_batch_files(world: Path, tmp_path: Path) -> None:
    work = job(world)
    ledger = Ledger(str(tmp_path / "ledger"))
    written = export_batches(work.requests(), ledger, str(tmp_path / "out"), form_check(work.recipe), most_bytes=50_000)
    assert len(written) > 3 and all(size <= 50_000 for _, _, size in written)
    with pytest.raises(DataError, match="a file holds 100"):
        export_batches(work.requests(), ledger, str(tmp_path / "none"), form_check(work.recipe), most_bytes=100)


def test_answers_of_another_job_are_an_error(world: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"custom_id": "x", "response": {}}\n')
    with pytest.raises(DataError, match="no line answers a request of this job"):
        import_batches(
            [str(tmp_path / "a.jsonl")], Ledger(str(tmp_path / "l")), job(world).requests(), lambda *_: "", FREE
        )
