"""Where each row came from: one JSON line a row, and one a dropped reply."""

from __future__ import annotations

from typing import Any

from llava.expansion.recipe.kinds import ExpansionRecipe
from llava.expansion.rows.assembly import Result
from llava.expansion.rows.row import Row


class Provenance:
    """Makes the lines of one run.

    Args:
        recipe: its kinds' fingerprints go into every line.
        gates: names of the gates in use, in order; a kept row has passed them all but for its flags.
    """

    def __init__(self, recipe: ExpansionRecipe, gates: list[str]) -> None:
        self._recipe = recipe
        self._fingerprints = {name: kind.fingerprint() for name, kind in recipe.kinds.items()}
        self._gates = gates

    def built_in(self, row: Row) -> dict[str, Any]:
        """A row made from the annotations alone."""
        return {"id": row.id, "image": row.image, "kind": row.kind, "recipe": self._recipe.name, "teacher": ""}

    def kept(self, result: Result) -> dict[str, Any]:
        """A row a teacher wrote."""
        assert result.row is not None and result.entry is not None
        flags = {finding.gate: finding.reason for finding in result.findings}
        gates = {name: flags.get(name, "passed") for name in self._gates}
        scores = {"scores": dict(result.scores)} if result.scores else {}
        return {"id": result.row.id, **self._common(result), "gates": gates, **scores}

    def dropped(self, result: Result) -> dict[str, Any]:
        """A reply that gave no row, with its reason and its text."""
        finding = next(finding for finding in result.findings if finding.hard)
        text = result.entry.text if result.entry is not None else ""
        return {**self._common(result), "gate": finding.gate, "reason": finding.reason, "reply": text}

    def _common(self, result: Result) -> dict[str, Any]:
        request, entry = result.request, result.entry
        common: dict[str, Any] = {
            "image": request.image.path,
            "kind": request.kind,
            "request": request.id,
            "recipe": self._recipe.name,
            "recipe_hash": self._fingerprints[request.kind],
            "parameters": {"model": request.model, **request.fields},
        }
        if entry is not None:
            usage = {"input": entry.usage.input, "cached_input": entry.usage.cached_input, "output": entry.usage.output}
            common |= {"teacher": entry.model, "attempt": entry.attempt, "usage": usage, "cost": entry.cost}
        return common
