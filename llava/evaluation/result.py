"""What one benchmark came to: answers and figures of every contender, and what stands beside them on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llava import storage
from llava.errors import UserError
from llava.evaluation.asking import Answered, Work
from llava.evaluation.benchmark import Benchmark
from llava.evaluation.question_images import Images
from llava.evaluation.runner import LeftOut
from llava.evaluation.statistics import Interval
from llava.evaluation.suite import Column
from llava.evaluation.summary import ModelSummary


@dataclass(frozen=True)
class Verdicts:
    """A judge's figure of one contender: whose, and when."""

    figure: Interval
    judges: str
    date: str

    @classmethod
    def beside(cls, folder: str, contender: str, headline: str) -> Verdicts | None:
        """What `llava evaluate judge` left for a contender, if it has been run."""
        uri = storage.join(folder, f"{contender}-verdicts.json")
        try:
            if not storage.exists(uri):
                return None
            found = storage.read_json(uri)
            figures = found["figures"]
            values = [float(figures[f"{headline}{end}"]) for end in ("", "_low", "_high")]
            interval = Interval(values[0], values[1], values[2], int(figures["judged"]))
            return cls(interval, ", ".join(found["judges"]), str(found["date"]))
        except (UserError, KeyError, TypeError, ValueError):
            return None  # not of ours: the table says "judge" where it would say a figure


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
    verdicts: Mapping[str, Verdicts]

    @property
    def left_out(self) -> dict[str, LeftOut]:
        """Questions that some contender has no answer to, by id."""
        found: dict[str, LeftOut] = {}
        for item in self.answered:
            found |= item.left_out
        return found
