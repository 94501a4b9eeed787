"""What one benchmark came to: answers and figures of every contender, and what stands beside them on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llava.evaluation.asking import Answered, Work
from llava.evaluation.benchmark import Benchmark
from llava.evaluation.question_images import Images
from llava.evaluation.runner import LeftOut
from llava.evaluation.suite import Column
from llava.evaluation.summary import ModelSummary
from llava.evaluation.verdicts import VerdictFile


@dataclass(frozen=True)
class Result:
    """One benchmark of a run.

    Attributes:
        column: its place in the table.
        benchmark: how it is scored.
        work: what was asked.
        images: of its questions.
        answered: every contender; the first is the model under test.
        summaries: their figures, in the same order.
        answers: by contender's title and question id.
        handed_in: name of the file for the benchmark's server, by contender's title.
        verdicts: of a judge, by contender's title.
    """

    column: Column
    benchmark: Benchmark
    work: Work
    images: Images
    answered: Sequence[Answered]
    summaries: Sequence[ModelSummary]
    answers: Mapping[str, Mapping[str, str]]
    handed_in: Mapping[str, str]
    verdicts: Mapping[str, VerdictFile]

    @property
    def left_out(self) -> dict[str, LeftOut]:
        """Questions that some contender has no answer to, by id."""
        found: dict[str, LeftOut] = {}
        for item in self.answered:
            found |= item.left_out
        return found
