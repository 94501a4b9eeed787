"""All gates of a run, in the order in which they look at a sample."""

from __future__ import annotations

from collections import Counter

from llava.errors import SettingsError
from llava.expansion.gates.base import Finding, Gate, Sample
from llava.expansion.gates.grammar import GrammarGate
from llava.expansion.gates.truncation import TruncationGate
from llava.expansion.recipe import ExpansionRecipe


class Panel:
    """The gates of one run and their counts.

    Args:
        recipe: nouns for grounding, soft gates of each kind.
        off: names of gates to leave out.

    Raises:
        SettingsError: `off` names no gate.
    """

    def __init__(self, recipe: ExpansionRecipe, *, off: set[str]) -> None:
        gates: list[Gate] = [GrammarGate(), TruncationGate()]
        names = [gate.name for gate in gates]
        unknown = off - set(names)
        if unknown:
            raise SettingsError(f"gates_off: found {', '.join(sorted(unknown))}; known gates: {', '.join(names)}")
        self.gates = [gate for gate in gates if gate.name not in off]
        self.hard: Counter[str] = Counter()
        self.soft: Counter[str] = Counter()

    def judge(self, sample: Sample) -> list[Finding]:
        """All findings up to and including the first hard one: a dropped row has one reason."""
        findings = []
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
