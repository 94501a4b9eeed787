"""A judge's verdicts on one file of answers, as they stand beside it: `<contender>-verdicts.json`.

They say which answers they are of, so that another model's answers in the same place are never shown with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from llava import storage
from llava.evaluation.benchmark import PROFILES
from llava.evaluation.predictions import fingerprint
from llava.evaluation.statistics import Interval
from llava.validation import validate


class VerdictRow(BaseModel):
    """What a judge said of one answer.

    Attributes:
        id: of the question.
        score: of the answer, on the benchmark's own scale.
        reference: of the reference answer beside it; 1 where there was none.
        share: the score as a share of the highest one.
        judge: who said it.
        reply: its words.
        problem: why there is no score.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    id: str
    score: float | None = None
    reference: float = 1.0
    share: float = 0.0
    judge: str = ""
    reply: str = ""
    problem: str = ""


class VerdictFile(BaseModel):
    """All verdicts on one contender's answers, and the figures they come to.

    Attributes:
        benchmark: its name.
        judges: how many verdicts each judge gave, by its own name.
        date: when.
        published_judge: who gave the published figures.
        answers_hash: of the answers they are of.
        figures: flat, each with its interval.
        verdicts: a row an answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    benchmark: str
    judges: dict[str, int]
    date: str
    published_judge: str
    answers_hash: str
    figures: dict[str, float]
    verdicts: list[VerdictRow] = Field(default_factory=list)

    @property
    def by(self) -> str:
        """The judges' names."""
        return ", ".join(self.judges)

    def figure(self, headline: str) -> Interval | None:
        """A figure with its interval; None where it was not judged."""
        names = (headline, f"{headline}_low", f"{headline}_high")
        if not all(name in self.figures for name in names):
            return None
        value, low, high = (self.figures[name] for name in names)
        return Interval(value, low, high, int(self.figures.get("judged", 0)))

    def scored(self) -> dict[str, dict[str, Any]]:
        """By question id what a scored row of predictions has: `scores`, and its part of the `headline` (the sum of
        scores by the sum of references). A judge knows no profiles."""
        return {
            row.id: {
                "scores": dict.fromkeys(PROFILES, row.share),
                "headline": {profile: [[0.0, row.score, row.reference]] for profile in PROFILES},
            }
            for row in self.verdicts
            if row.score is not None
        }


def verdicts_uri(predictions: str) -> str:
    """Where the verdicts on a predictions file stand."""
    return f"{predictions.removesuffix('.jsonl')}-verdicts.json"


def answers_hash(answers: Mapping[str, str]) -> str:
    """Tells one set of answers from another."""
    return fingerprint(sorted(answers.items()))


def verdicts_on(predictions: str, answers: Mapping[str, str]) -> VerdictFile | None:
    """The verdicts on a predictions file; None where it was not judged, or other answers than these were.

    Raises:
        SettingsError: the file is not of this form.
        StorageError: it cannot be read.
    """
    uri = verdicts_uri(predictions)
    if not storage.exists(uri):
        return None
    found = validate(VerdictFile, storage.read_json(uri), uri)
    return found if found.answers_hash == answers_hash(answers) else None
