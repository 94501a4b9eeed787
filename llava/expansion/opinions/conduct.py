"""Ask a judge: the ledger of its own, its budget, what stops it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

from llava.errors import DataError, SettingsError
from llava.expansion.asking.dispatch import Outcome
from llava.expansion.asking.ledger import Ledger
from llava.expansion.asking.teaching import OFFLINE, TeacherSettings, ask_all
from llava.expansion.job import Job
from llava.expansion.opinions.judge import DEFAULT_THRESHOLD, HIGHEST, LOWEST, Judge, JudgeSettings, unusable_score
from llava.expansion.opinions.thresholds import Thresholds, read_thresholds
from llava.expansion.recipe.kinds import ExpansionRecipe
from llava.expansion.recipe.requests import Request
from llava.telemetry import Telemetry


def check_judge(settings: JudgeSettings, teacher: TeacherSettings) -> None:
    """What can be refused before annotations are read or anything is paid.

    Raises:
        SettingsError: the offline teacher as a judge, or no price for a budget.
    """
    if not settings.asked:
        return
    if teacher.teacher == OFFLINE and not settings.model:
        raise SettingsError(
            "judge_model: empty, and the offline teacher cannot judge; name a model, or leave the judge out "
            "(judge_sample 0, judge_rows sample)"
        )
    judging_settings(settings, teacher).price()


def check_judge_recipe(recipe: ExpansionRecipe, settings: JudgeSettings, kinds: Sequence[str]) -> Thresholds:
    """Whether the recipe says how such a judge is asked; returns the least score of each kind.

    Raises:
        SettingsError: it does not, or the thresholds are none.
    """
    if settings.asked and recipe.judge is None:
        raise SettingsError(f"judge_sample, judge_rows: expansion recipe {recipe.name!r} has no judge.yaml")
    if settings.asked and settings.images and recipe.judge is not None and not recipe.judge.vision_system:
        raise SettingsError(f"judge_images: judge.yaml of expansion recipe {recipe.name!r} has no vision_system")
    return read_thresholds(
        "judge_threshold", settings.thresholds, kinds, default=DEFAULT_THRESHOLD, low=LOWEST, high=HIGHEST
    )


def judging_settings(settings: JudgeSettings, teacher: TeacherSettings) -> TeacherSettings:
    """The judge as somebody to be asked: the teacher's limits, its own model, endpoint and budget."""
    return replace(
        teacher,
        teacher="openai",
        endpoint=settings.endpoint or teacher.endpoint,
        model=settings.model or teacher.model,
        max_cost=settings.max_cost or teacher.max_cost,
        mode="online",
    )


def open_judge(
    job: Job,
    settings: JudgeSettings,
    teacher: TeacherSettings,
    ledger_uri: str,
    telemetry: Telemetry,
    opened: ExitStack,
) -> Judge:
    """The judge with its ledger open until `opened` closes.

    Raises:
        SettingsError: the recipe has no such judge, thresholds are wrong, or the ledger is open elsewhere.
    """
    thresholds = check_judge_recipe(job.recipe, settings, [kind.name for kind in job.taught])
    assert job.recipe.judge is not None
    ledger = Ledger(ledger_uri, "expand: judge", telemetry.note)
    opened.callback(ledger.close)
    for note in ledger.notes:
        telemetry.note(f"judge's ledger: {note}")
    return Judge(
        job.recipe.judge,
        judging_settings(settings, teacher).model,
        ledger,
        thresholds,
        job.attacher if settings.images else None,
        job.extra_body,
    )


def ask_judge(
    judge: Judge,
    requests: Iterator[Request],
    settings: JudgeSettings,
    teacher: TeacherSettings,
    spent: float,
    telemetry: Telemetry,
    *,
    may_stop: bool,
) -> None:
    """Fill the judge's ledger.

    Args:
        spent: what the teacher cost; counts against the budget where the judge has none of its own.
        may_stop: a judge that stops is noted, and rows without a score stay.

    Raises:
        DataError: it stopped and may not.
    """
    asked = judging_settings(settings, teacher)
    if not settings.max_cost and teacher.max_cost:
        left = teacher.max_cost - spent
        if left <= 0:
            _stopped("nothing is left of max_cost; set judge_max_cost", may_stop, telemetry)
            return
        asked = replace(asked, max_cost=left)

    def progress(outcome: Outcome) -> None:
        telemetry.progress("judged", outcome.answered + outcome.dropped + outcome.failed, None, cost=judge.ledger.cost)

    outcome = ask_all(requests, asked, judge.ledger, unusable=unusable_score, progress=progress, model=judge.model)
    if outcome.stopped:
        hint = "; raise judge_max_cost, or set allow_partial to keep rows without a score" if outcome.budget else ""
        _stopped(f"{outcome.stopped}{hint}", may_stop, telemetry)
    if outcome.failed:
        telemetry.note(f"judge: {outcome.failed:,} requests given up after all retries; the next run asks them again")


def _stopped(why: str, may_stop: bool, telemetry: Telemetry) -> None:
    if not may_stop:
        raise DataError(f"judge: {why}; what it said is safe in its ledger and will not be asked again")
    telemetry.note(f"judge stopped: {why}")
