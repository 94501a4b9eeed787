"""Several real processes share the questions: the same answers as one, and nothing lost when one of them is killed."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from pathlib import Path

import pytest

from llava.errors import SettingsError
from llava.evaluation.asking import Work, answer_share
from llava.evaluation.benchmarks.custom import Custom
from llava.evaluation.contenders import Lineup
from llava.evaluation.ranks import RankLost, answer_shared, rank_count
from llava.telemetry import Telemetry
from tests.conftest import TinyWorld
from tests.hub_model import HubModel


def work_in(folder: Path, world: TinyWorld, questions: int, longest: int = 6) -> Work:
    asked = Custom().read(str(world.questions))[:questions]
    return Work("custom", "custom", str(world.questions), asked, world.images_uri, str(folder), longest)


@pytest.mark.slow
def test_two_ranks_answer_what_one_answers(hub_model: HubModel, tiny_world: TinyWorld, tmp_path: Path) -> None:
    lineup = Lineup(str(hub_model.model), str(hub_model.projector), batch_size=4)
    with Telemetry("evaluate", "test") as telemetry:
        one, two = work_in(tmp_path / "one", tiny_world, 13), work_in(tmp_path / "two", tiny_world, 13)
        alone = answer_share(lineup, [one], telemetry)
        shared = answer_shared(lineup, [two], telemetry, 2)
    assert [item.name for item in shared] == [item.name for item in alone] == ["finetuned", "blank", "stage1"]
    for mine, theirs in zip(alone, shared, strict=True):
        answers = mine.log(one).answers
        assert len(answers) == 13 and theirs.log(two).answers == answers
        parts = {path.name[:5] for path in (tmp_path / f"two/{mine.name}-{mine.whose}.parts").iterdir()}
        assert parts == {"rank0", "rank1"}


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_and_what_was_answered_is_not_asked_again(
    hub_model: HubModel, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    lineup = Lineup(str(hub_model.model), blank=False, batch_size=1)
    work = work_in(tmp_path, tiny_world, 28, longest=40)
    caught: list[BaseException] = []

    def run() -> None:
        try:
            with Telemetry("evaluate", "test") as telemetry:
                answer_shared(lineup, [work], telemetry, 2)
        except RankLost as error:
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 400
    while len(list(tmp_path.glob("finetuned-*.parts/rank*.jsonl"))) < 4:
        assert thread.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    multiprocessing.active_children()[0].kill()
    thread.join(60)
    [error] = caught
    assert "without a word" in str(error) and "run the same again" in str(error)
    assert not multiprocessing.active_children()
    parts = {path: path.stat().st_mtime_ns for path in tmp_path.glob("finetuned-*.parts/*.jsonl")}
    kept = {row["id"] for path in parts for row in map(json.loads, path.read_text().splitlines())}
    assert 4 <= len(kept) < 28
    with Telemetry("evaluate", "test") as telemetry:
        [again] = answer_share(lineup, [work], telemetry)
    assert len(again.log(work).answers) == 28
    assert all(path.stat().st_mtime_ns == changed for path, changed in parts.items())
    rows = [row for path in tmp_path.glob("*.parts/*.jsonl") for row in map(json.loads, path.read_text().splitlines())]
    assert len(rows) == 28


def test_how_many_ranks() -> None:
    assert rank_count("3") == 3 and rank_count("auto") >= 1
    for wrong in ("0", "many", "-1", "1.5"):
        with pytest.raises(SettingsError, match=f"processes: found '{wrong}'; expected auto, or a number from 1"):
            rank_count(wrong)
