"""What stands beside a predictions file: whose answers they are, to what, and how its headline is put together."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class About(BaseModel):
    """`<contender>.about.json`.

    Attributes:
        whose: short hash of model and engine.
        contender: as in the file's name.
        title: of the contender.
        model: where it was loaded from.
        model_hash: of its files.
        engine: who computed the answers, and in which type.
        benchmark: its name.
        headline: the figure that the rows carry parts of.
        weights: of the headline's ratios, by profile; empty where nothing is scored here.
        questions_uri: where the questions were from.
        images_uri: root of their images.
        questions: how many were to be asked.
        data_hash: of questions and right answers.
        left_out: questions without an answer, and why.
        created_unix: when it was finished.
        version: of the code.
        commit: of the code, where it ran from a source tree.
        image: the code ran in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    whose: str = ""
    contender: str
    title: str
    model: str
    model_hash: str
    engine: str
    benchmark: str
    headline: str
    weights: dict[str, list[float]]
    questions_uri: str
    images_uri: str
    questions: int
    data_hash: str
    left_out: dict[str, dict[str, str]] = Field(default_factory=dict)
    created_unix: float
    version: str
    commit: str
    image: str


def about_uri(predictions: str) -> str:
    """Where the description of a predictions file stands."""
    return f"{predictions.removesuffix('.jsonl')}.about.json"
