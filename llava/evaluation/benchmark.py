"""What a benchmark is: how to read a row, how to ask, how to score. Everything else is shared.

Scores come in two profiles. `llava-1.5` does what the original's scripts do, weaknesses included, so that figures can
be compared with published ones; `robust` reads answers with more understanding. Both are reported, with the number of
answers on which they differ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from llava.evaluation import statistics
from llava.evaluation.ratios import Ratios
from llava.evaluation.statistics import Interval

Profile = Literal["llava-1.5", "robust"]
PROFILES: tuple[Profile, ...] = ("llava-1.5", "robust")

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
OPTION_LETTER = "\nAnswer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: unique in the benchmark.
        images: references below the images' root, or `data:` URIs; each is shown before the text.
        text: what the user says, suffix included.
        expected: the right answer as a person reads it.
        kind: what results are broken down by.
        cluster: questions that share it are not independent; usually the image.
        gold: what the scorer needs besides.
    """

    id: str
    images: tuple[str, ...]
    text: str
    expected: str
    kind: str
    cluster: str
    gold: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """A question with a model's answer and its score, from 0 to 1, in each profile."""

    question: Question
    answer: str
    scores: Mapping[Profile, float]


class Benchmark(ABC):
    """Base of all benchmarks; a subclass is one file in `llava/evaluation/benchmarks/`."""

    name: ClassVar[str]
    headline: ClassVar[str] = "accuracy"
    max_new_tokens: ClassVar[int] = 16

    @abstractmethod
    def read(self, uri: str) -> list[Question]:
        """The questions behind a URI.

        Raises:
            DataError: absent, empty, or not of the benchmark's format.
        """

    @abstractmethod
    def score(self, question: Question, answer: str, profile: Profile) -> float:
        """Score of one answer, from 0 to 1."""

    def headline_ratios(self, scored: Sequence[Scored], profile: Profile) -> Ratios:
        """The headline over a set of answers, in a form that can be resampled and paired: two models are compared by
        it, here and from predictions on disk. Default: the mean score."""
        return Ratios.mean([item.scores[profile] for item in scored])

    def figures(self, scored: Sequence[Scored], profile: Profile) -> dict[str, Interval]:
        """The benchmark's figures over a set of answers; `headline` is one of them."""
        clusters = [item.question.cluster for item in scored]
        return {self.headline: statistics.estimate(self.headline_ratios(scored, profile), clusters)}

    def by_kind(self, scored: Sequence[Scored], profile: Profile) -> dict[str, Interval]:
        """Mean score of each kind of question, in order of first appearance."""
        kinds = dict.fromkeys(item.question.kind for item in scored)
        chosen = {kind: [item for item in scored if item.question.kind == kind] for kind in kinds}
        return {
            kind: statistics.mean([item.scores[profile] for item in items], [item.question.cluster for item in items])
            for kind, items in chosen.items()
        }

    def scored(self, question: Question, answer: str) -> Scored:
        """Score one answer in every profile."""
        return Scored(question, answer, {profile: self.score(question, answer, profile) for profile in PROFILES})
