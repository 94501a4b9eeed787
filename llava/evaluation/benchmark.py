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

from llava import storage
from llava.evaluation import layouts, statistics
from llava.evaluation.layouts import Form
from llava.evaluation.ratios import Ratios
from llava.evaluation.statistics import Interval
from llava.evaluation.submission import Submission

Profile = Literal["llava-1.5", "robust"]
PROFILES: tuple[Profile, ...] = ("llava-1.5", "robust")

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
OPTION_LETTER = "\nAnswer with the option's letter from the given choices directly."
OPTION_LETTER_CN = "\n请直接回答选项字母。"


@dataclass(frozen=True, slots=True)
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
        known: whether the right answer is known here; figures leave out the others, submission files hold them all.
    """

    id: str
    images: tuple[str, ...]
    text: str
    expected: str
    kind: str
    cluster: str
    gold: Mapping[str, Any] = field(default_factory=dict)
    known: bool = True


@dataclass(frozen=True, slots=True)
class Scored:
    """A question with a model's answer and its score, from 0 to 1, in each profile."""

    question: Question
    answer: str
    scores: Mapping[Profile, float]


class Benchmark(ABC):
    """Base of all benchmarks; a subclass is one file in `llava/evaluation/benchmarks/`.

    Attributes:
        name: what `--benchmark` calls it.
        headline: the figure that stands for it.
        max_new_tokens: longest answer, in tokens, as the original allows it.
        forms: the files it is read from, best first.
        image_folders: where its images usually stand below the folder of the questions.
    """

    name: ClassVar[str]
    headline: ClassVar[str] = "accuracy"
    max_new_tokens: ClassVar[int] = 128
    forms: ClassVar[tuple[Form, ...]] = ()
    image_folders: ClassVar[tuple[str, ...]] = ("images",)

    @abstractmethod
    def read(self, uri: str) -> list[Question]:
        """The questions behind a URI: a folder, or files separated by commas.

        Raises:
            DataError: absent, empty, or not of the benchmark's format.
        """

    def images_uri(self, uri: str) -> str:
        """Where the images are when nobody says: the first usual folder that is there, or the questions' own."""
        folder = layouts.folder_of(uri)
        places = [storage.join(folder, name) for name in self.image_folders]
        return next((place for place in places if storage.exists(place)), folder)

    def submission(self, uri: str, questions: Sequence[Question], answers: Mapping[str, str]) -> Submission | None:
        """The file for the server that scores this benchmark; None where it is scored here.

        Args:
            uri: the questions, as given to `read`.
            questions: those that were to be asked.
            answers: the model's, by question id.
        """
        return None

    def notes(self) -> list[str]:
        """What a reader of the figures must know about how they were made."""
        return []

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
