"""Benchmarks whose answers another model judges: what it is asked, and how its reply is read.

Asking is not done here: a judge costs money, and what keeps money (ledger, budget, retries, batch files) belongs to the
expansion; `llava.stages.judging` brings the two together.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llava.evaluation.benchmark import Benchmark, Profile, Question
from llava.evaluation.statistics import Interval


@dataclass(frozen=True)
class Verdict:
    """What a judge said of one answer.

    Attributes:
        question: it answers.
        score: of the answer, on the benchmark's own scale.
        reference: of the reference answer that stood beside it; 1 where there was none.
    """

    question: Question
    score: float
    reference: float = 1.0


class Judged(Benchmark):
    """Base of judged benchmarks; their questions are asked like any other's and scored afterwards.

    Attributes:
        judge_system: the judge's system message; empty: none.
        judge_temperature: as the benchmark's own evaluator has it.
        judge_max_tokens: longest reply.
        highest: the best score there is.
        published_judge: who gave the published figures.
    """

    judge_system: ClassVar[str] = ""
    judge_temperature: ClassVar[float] = 0.0
    judge_max_tokens: ClassVar[int] = 1024
    highest: ClassVar[float] = 1.0
    published_judge: ClassVar[str]

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        raise NotImplementedError(f"{self.name} is scored by a judge: llava evaluate judge")

    @abstractmethod
    def judge_prompt(self, question: Question, answer: str) -> str:
        """What the judge is asked about one answer."""

    @abstractmethod
    def verdict(self, question: Question, reply: str) -> Verdict | None:
        """What a reply says; None when it says nothing that can be used."""

    @abstractmethod
    def judged_figures(self, verdicts: Sequence[Verdict]) -> dict[str, Interval]:
        """The benchmark's figures; `headline` is one of them."""

    def notes(self) -> list[str]:
        return [
            f"Answers to {self.name} are scored by a judge (llava evaluate judge). The published figures are those of "
            f"{self.published_judge}; another judge gives others."
        ]
