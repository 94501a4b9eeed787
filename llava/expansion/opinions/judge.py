"""A second opinion: a model scores replies from 1 to 5, with the image before it or only with what is known of it.

Asked about a sample, it changes no row; asked about every row that passed the gates, it drops those below a threshold.
Its requests and replies have a ledger of their own, beside the teacher's, so that nothing is asked or paid for twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llava.expansion.asking.ledger import Ledger
from llava.expansion.gates import Finding
from llava.expansion.opinions.agreement import KEPT, Agreement
from llava.expansion.opinions.thresholds import Thresholds
from llava.expansion.recipe.attaching import Attacher
from llava.expansion.recipe.kinds import JudgeRecipe, Sampling
from llava.expansion.recipe.requests import Request, RequestMaker
from llava.expansion.rows.assembly import Opinion, Result
from llava.expansion.teachers.base import Reply

KIND = "judge"
LOWEST, HIGHEST = 1.0, 5.0
DEFAULT_THRESHOLD = 3.0
_SCORE = re.compile(r"^\W*score\W*([1-5](?:\.\d+)?)(?:\s*/\s*5)?\W*$", re.IGNORECASE | re.MULTILINE)
_VERDICT = re.compile(r"^\W*verdict\W*(good|bad)\b", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class JudgeSettings:
    """Whom to ask about what.

    Attributes:
        rows: a sample, or every row that passed the gates.
        sample: replies per kind and gate; with `rows="all"` of dropped replies alone; 0 with `rows="sample"`: no judge.
        model: empty: the teacher's.
        endpoint: empty: the teacher's.
        max_cost: budget of the judge alone; 0: it shares the teacher's.
        thresholds: the lowest good score, as the setting has it.
        images: the judge is shown the image too.
    """

    rows: Literal["sample", "all"] = "sample"
    sample: int = 0
    model: str = ""
    endpoint: str = ""
    max_cost: float = 0.0
    thresholds: str = ""
    images: bool = False

    @property
    def asked(self) -> bool:
        """Whether there is a judge at all."""
        return self.rows == "all" or self.sample > 0


@dataclass
class Judge:
    """Makes the requests, reads the scores, counts how they agree with the gates.

    Attributes:
        attacher: of the images; None: the judge sees none.
    """

    recipe: JudgeRecipe
    model: str
    ledger: Ledger
    thresholds: Thresholds
    attacher: Attacher | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    name: str = "judge"

    def __post_init__(self) -> None:
        system = self.recipe.system if self.attacher is None else self.recipe.vision_system
        self._maker = RequestMaker(
            KIND,
            [{"role": "system", "content": system.strip()}],
            self.model,
            Sampling(max_tokens=self.recipe.max_tokens),
            self.extra_body,
            draws=False,
        )
        self.agreement = Agreement()

    def requests(self, results: Iterable[Result]) -> Iterator[Request]:
        """A request for every result that has a reply; equal ones once."""
        seen: set[str] = set()
        for result in results:
            request = self._request(result)
            if request is not None and request.id not in seen:
                seen.add(request.id)
                yield request

    def __call__(self, result: Result) -> Opinion:
        """What the judge says of a row that passed the gates; one that it has not scored stays, and is counted."""
        score = self.see(result, KEPT)
        least = self.thresholds.of(result.request.kind)
        if score is None or score >= least:
            return Opinion(score)
        self.agreement.dropped += 1
        return Opinion(score, Finding(self.name, f"score {score:g}, and {least:g} is the least"))

    def see(self, result: Result, gate: str) -> float | None:
        """Count a reply that `gate` dropped (or `KEPT`); returns its score."""
        score = self._score(result)
        kind = result.request.kind
        self.agreement.add(kind, gate, score, good=score is not None and score >= self.thresholds.of(kind))
        return score

    def _score(self, result: Result) -> float | None:
        request = self._request(result)
        entry = None if request is None else self.ledger.get(request.id)
        return read_score(entry.text) if entry is not None and entry.status == "answered" else None

    def _request(self, result: Result) -> Request | None:
        if result.entry is None or not result.entry.text:
            return None
        attached = self.attacher.attach(result.request.image) if self.attacher is not None else None
        if self.attacher is not None and attached is None:
            return None  # an image that cannot be read is counted with the annotations' broken rows
        known = result.request.context or "(nothing is known but what the image shows)"
        return self._maker.request(result.request.image, f"{known}\n\n---\n{result.entry.text}", attached)


def read_score(text: str) -> float | None:
    """The number behind `Score:`, 1 to 5; `Verdict: good` and `bad`, as recipes of one's own may ask, are 5 and 1."""
    if match := _SCORE.search(text):
        return min(float(match.group(1)), HIGHEST)
    if match := _VERDICT.search(text):
        return HIGHEST if match.group(1).lower() == "good" else LOWEST
    return None


def unusable_score(kind: str, reply: Reply) -> str:
    """Why a judge's reply cannot be used."""
    return "" if read_score(reply.text) is not None else "judge: no line `Score: 1` to `Score: 5`"
