"""From the ledger to rows: every request in its fixed order, its reply through the gates, kept or dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from llava.expansion.asking.entries import Entry
from llava.expansion.asking.ledger import Ledger
from llava.expansion.asking.settled import Unusable, settle
from llava.expansion.gates import Finding, Panel, Sample
from llava.expansion.recipe.kinds import ExpansionRecipe
from llava.expansion.recipe.requests import Request
from llava.expansion.rows.row import Row
from llava.expansion.rows.taught import row_of


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one request. `row` is None for a dropped one, `entry` None for one never answered.

    Attributes:
        scores: opinion -> its score, of a row that passed the gates.
    """

    request: Request
    entry: Entry | None
    row: Row | None
    findings: list[Finding]
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Why there is no row; empty when there is one."""
        return next((f"{f.gate}: {f.reason}" for f in self.findings if f.hard), "")


@dataclass(frozen=True, slots=True)
class Opinion:
    """A second opinion on one row: its score, None without one, and what is held against the row."""

    score: float | None
    finding: Finding | None = None


class Opined(Protocol):
    """What looks at rows that passed the gates."""

    name: str

    def __call__(self, result: Result) -> Opinion:
        """What it says of one such row."""
        ...


def assemble(
    requests: Iterable[Request],
    ledger: Ledger,
    recipe: ExpansionRecipe,
    panel: Panel,
    *,
    unusable: Unusable,
    image_position: str,
    seed: int,
    opinions: Sequence[Opined] = (),
) -> Iterator[Result]:
    """One result a request, in the order of `requests`; the same ledger always gives the same results.

    `opinions` are asked in turn about each row that passed the gates, until one holds something against it.

    What the ledger's texts are worth is decided here and now, by today's rules, whatever was decided when they came.
    """
    for request in requests:
        entry, why = settle(ledger, request, unusable)
        if entry is None:
            yield Result(request, None, None, [Finding("unanswered", "no reply in the ledger")])
            continue
        if why:
            panel.note(finding := Finding(*_named(why)))
            yield Result(request, entry, None, [finding])
            continue
        kind = recipe.kind(request.kind)
        pairs = kind.grammar.parse(entry.text)
        findings = panel.judge(Sample(kind, request.image, entry.text, entry.finish_reason, pairs))
        if any(finding.hard for finding in findings):
            yield Result(request, entry, None, findings)
        else:
            questions = recipe.questions.get(kind.questions, [])
            row = row_of(kind, request, pairs, questions, image_position, seed)
            yield _asked(opinions, Result(request, entry, row, findings), panel)


def _asked(opinions: Sequence[Opined], result: Result, panel: Panel) -> Result:
    for opined in opinions:
        opinion = opined(result)
        if opinion.score is not None:
            result = replace(result, scores={**result.scores, opined.name: opinion.score})
        if opinion.finding is not None:
            panel.add(opinion.finding)
            return replace(result, row=None, findings=[*result.findings, opinion.finding])
    return result


def _named(reason: str) -> tuple[str, str]:
    gate, _, rest = reason.partition(": ")
    return (gate, rest) if rest else ("teacher", reason)
