"""All gates of a run, in the order in which they look at a sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from llava.errors import SettingsError
from llava.expansion.gates.balance import BalanceGate
from llava.expansion.gates.base import Finding, Gate, Sample
from llava.expansion.gates.blocklist import BlocklistGate
from llava.expansion.gates.characters import CharacterGate
from llava.expansion.gates.chatter import ChatterGate
from llava.expansion.gates.coordinates import CoordinateGate
from llava.expansion.gates.counts import CountGate
from llava.expansion.gates.duplicates import DuplicateGate
from llava.expansion.gates.grammar import GrammarGate
from llava.expansion.gates.grounding import GroundingGate
from llava.expansion.gates.language import LanguageGate
from llava.expansion.gates.leakage import LeakageGate
from llava.expansion.gates.markup import MarkupGate
from llava.expansion.gates.nouns import NounFinder
from llava.expansion.gates.personal import PersonalDataGate
from llava.expansion.gates.refusal import RefusalGate
from llava.expansion.gates.repetition import RepetitionGate
from llava.expansion.gates.sides import SideGate
from llava.expansion.gates.truncation import TruncationGate
from llava.expansion.recipe.kinds import ExpansionRecipe


class Panel:
    """The gates of one run and their counts.

    Args:
        recipe: nouns for grounding, soft gates of each kind.
        categories: of the annotations; without any, grounding, counts and sides have nothing to check against.
        blocked: numeric ids of evaluation images.
        off: names of gates to leave out.

    Raises:
        SettingsError: `off` names no gate.
    """

    def __init__(
        self, recipe: ExpansionRecipe, categories: Sequence[str], *, blocked: frozenset[int], off: set[str]
    ) -> None:
        finder = NounFinder(categories, recipe.nouns, recipe.ambiguous, recipe.phrases) if categories else None
        gates: list[Gate] = [
            BlocklistGate(blocked),
            GrammarGate(),
            TruncationGate(),
            RefusalGate(),
            PersonalDataGate(),
            CharacterGate(),
            MarkupGate(),
            LanguageGate(recipe.language),
            ChatterGate(),
            LeakageGate(),
            CoordinateGate(),
            RepetitionGate(),
            GroundingGate(finder),
            CountGate(finder),
            SideGate(finder),
            DuplicateGate(),
            BalanceGate(),
        ]
        names = [gate.name for gate in gates]
        unknown = off - set(names)
        if unknown:
            raise SettingsError(f"gates_off: found {', '.join(sorted(unknown))}; known gates: {', '.join(names)}")
        self.gates = [gate for gate in gates if gate.name not in off]
        self.names = [gate.name for gate in self.gates]
        self.seen = 0
        self.hard: Counter[str] = Counter()
        self.soft: Counter[str] = Counter()

    def note(self, finding: Finding) -> None:
        """Count what was found before any gate was asked."""
        self.seen += 1
        self.hard[finding.gate] += 1

    def add(self, finding: Finding) -> None:
        """Count what was held against a sample that had passed."""
        self.hard[finding.gate] += 1

    def judge(self, sample: Sample) -> list[Finding]:
        """All findings up to and including the first hard one: a dropped row has one reason."""
        findings = []
        self.seen += 1
        for gate in self.gates:
            reason = gate.check(sample)
            if not reason:
                continue
            hard = gate.name not in sample.kind.soft_gates
            (self.hard if hard else self.soft)[gate.name] += 1
            findings.append(Finding(gate.name, reason, hard))
            if hard:
                break
        return findings
