"""What is charged, reserved and counted, reply by reply: a teacher that follows a script, expectations by hand."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from llava.expansion.asking.budget import Budget, message_bytes
from llava.expansion.asking.dispatch import Dispatcher, Outcome
from llava.expansion.asking.ledger import Ledger
from llava.expansion.asking.limits import Limits
from llava.expansion.asking.prices import Price
from llava.expansion.recipe.requests import Request
from llava.expansion.teachers.base import Reply, Usage
from llava.expansion.teachers.failures import TeacherFailure
from tests.expansion.asking.test_spending import entry
from tests.expansion.small_job import captions, job

PRICE = Price(input=1_000_000, output=1_000_000)  # one unit a token
GOOD = Reply("fine", "stop", "teacher", Usage(100, 0, 10))


class Scripted:
    """Gives the replies and raises the failures of a list, then good replies."""

    model = "teacher"

    def __init__(self, script: Iterable[Reply | TeacherFailure] = ()) -> None:
        self._script = iter(script)
        self.asked = 0

    async def ask(self, request: Request) -> Reply:
        self.asked += 1
        await asyncio.sleep(0)
        given = next(self._script, GOOD)
        if isinstance(given, TeacherFailure):
            raise given
        return given

    async def renew(self) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture
def requests(tmp_path: Path) -> list[Request]:
    return list(job(captions(tmp_path / "annotations", 12)).requests())


def dispatch(
    script: Iterable[Reply | TeacherFailure], requests: list[Request], folder: Path, budget: Budget, limits: Limits
) -> tuple[Outcome, Ledger, Scripted]:
    teacher, ledger = Scripted(script), Ledger(str(folder))
    dispatcher = Dispatcher(teacher, ledger, unusable=lambda kind, reply: "", budget=budget, limits=limits)
    return asyncio.run(dispatcher.run(iter(requests))), ledger, teacher


def test_a_server_that_reports_no_usage_is_charged_the_worst_case(requests: list[Request], tmp_path: Path) -> None:
    """A token a byte, as many out as were allowed: nobody can have charged more."""
    budget = Budget(PRICE, 0, 0.0)
    silent = Reply("fine", "stop", "teacher", Usage())
    _, ledger, _ = dispatch([silent], requests[:1], tmp_path / "ledger", budget, Limits(concurrency=1))
    size = message_bytes(requests[0].prefix) + len(requests[0].context.encode())
    assert ledger.cost == pytest.approx(size + 1 + (requests[0].max_tokens or 0))
    assert budget.spent == pytest.approx(ledger.cost)


def test_the_worst_case_follows_the_largest_ratio_of_tokens_to_bytes(requests: list[Request]) -> None:
    budget = Budget(PRICE, 0, 0.0)
    size = message_bytes(requests[0].prefix) + len(requests[0].context.encode())
    most = requests[0].max_tokens or 0
    for tokens, largest in [(size // 4, size // 4), (size // 2, size // 2), (size // 8, size // 2)]:
        budget.settle(requests[0], Usage(tokens, 0, 1))
        assert budget.worst(requests[0]) == pytest.approx(1.1 * largest + 1 + most, abs=1.5)


@pytest.mark.parametrize("action", ["drop", "retry"])
def test_what_cost_nothing_sets_nothing_aside(action: str, requests: list[Request], tmp_path: Path) -> None:
    """Six refusals that nobody charges for; the budget has room for two requests, so what stayed aside would end it."""
    budget = Budget(PRICE, 0, 0.0)
    budget.most = 2.5 * budget.worst(requests[0]) + 12 * 110
    refused = TeacherFailure("drop" if action == "drop" else "retry", "no", status=400)
    limits = Limits(concurrency=1, first_pause=0.0, longest_pause=0.0)
    outcome, ledger, _ = dispatch([GOOD, *[refused] * 6], requests, tmp_path / "ledger", budget, limits)
    assert not outcome.stopped and not outcome.budget
    assert budget.reserved == 0 and not budget.in_flight
    assert ledger.cost == outcome.answered * 110
    assert outcome.answered == (6 if action == "drop" else 12)


def test_only_failures_in_a_row_mean_that_the_endpoint_is_down(requests: list[Request], tmp_path: Path) -> None:
    down = TeacherFailure("retry", "503", status=503)
    limits = Limits(concurrency=1, first_pause=0.0, longest_pause=0.0, consecutive_failures=4)
    apart = [one for _ in range(6) for one in (down, down, down, GOOD)]  # eighteen, never four together
    outcome, ledger, teacher = dispatch(apart, requests, tmp_path / "apart", Budget(PRICE, 0, 0.0), limits)
    assert not outcome.stopped and outcome.answered == 12 and teacher.asked == 12 + 18
    ledger.close()
    outcome, _, teacher = dispatch([down] * 4, requests, tmp_path / "row", Budget(PRICE, 0, 0.0), limits)
    assert "4 failures in a row" in outcome.stopped and teacher.asked == 4


def test_replies_that_a_crash_in_a_merge_left_twice_cost_once(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path))
    ledger.append([entry("a"), entry("b", "unusable"), entry("b", "answered", 2)])
    cost, usage = ledger.cost, ledger.usage
    ledger.close()
    (segment,) = tmp_path.glob("segment-*.jsonl")
    shutil.copy(segment, segment.with_name(segment.name.replace(".jsonl", "-merged.jsonl")))
    again = Ledger(str(tmp_path))
    assert (again.cost, again.usage, len(again)) == (cost, usage, 2) == (1.5, Usage(30, 0, 15), 2)
    assert again.attempts("b") == 2 and again.repairs("b") == 1


def test_the_mean_of_outputs_is_of_replies_and_not_of_what_was_billed_for_nothing(tmp_path: Path) -> None:
    """Three replies of 5 tokens; a billed failure of 5 and a reply that reported none are in no mean."""
    ledger = Ledger(str(tmp_path))
    ledger.append([entry("a"), entry("b"), entry("c", "billed"), entry("c", "answered", 2)])
    ledger.append([replace(entry("d"), usage=Usage(10, 0, 0)), replace(entry("e", "billed"), usage=Usage(10, 0, 90))])
    assert ledger.mean_output("detail") == 5


def test_before_anything_is_known_tokens_are_guessed_from_bytes(requests: list[Request]) -> None:
    """At 0.4 tokens a byte for the pace, at a token a byte for the worst case, the answer at its longest."""
    request, budget = replace(requests[0], max_tokens=50), Budget(PRICE, 0.0, 0.0)
    size = message_bytes(request.prefix) + len(request.context.encode())
    assert budget.input_tokens(request) == pytest.approx(0.4 * size)
    assert budget.worst(request) == size + 1 + 50
    assert budget.worst(replace(request, max_tokens=None)) == size + 1
    budget.settle(request, Usage(size // 2, 0, 10))
    seen = (size // 2) / size
    assert budget.input_tokens(request) == pytest.approx(seen * size)
    assert budget.worst(request) == int(seen * 1.1 * size) + 1 + 50


def test_a_usage_that_no_server_can_have_measured(requests: list[Request]) -> None:
    request, budget = replace(requests[0], max_tokens=50), Budget(PRICE, 0.0, 0.0)
    size = message_bytes(request.prefix) + len(request.context.encode())
    most, longest = 4 * size + 1000, 4 * 50 + 1000
    assert not budget.absurd(request, Usage(most, most, longest))
    assert budget.absurd(request, Usage(most + 1, 0, longest))
    assert budget.absurd(request, Usage(most, 0, longest + 1))
    assert budget.absurd(request, Usage(100, 101, 1)), "more was cached than sent"
    assert not budget.absurd(replace(request, max_tokens=None), Usage(most, 0, 10**9)), "nobody named a longest answer"


def test_what_is_released_leaves_nothing_reserved(requests: list[Request]) -> None:
    budget = Budget(PRICE, 1e9, 0.0)
    assert budget.reserved == 0 and not budget.in_flight
    first, second = requests[:2]
    assert budget.reserve(first) and budget.reserve(second)
    assert budget.reserved == budget.worst(first) + budget.worst(second) and budget.in_flight
    budget.release(first)
    assert budget.reserved == pytest.approx(budget.worst(second)) and budget.in_flight
    budget.release(second)
    assert budget.reserved == 0 and not budget.in_flight
