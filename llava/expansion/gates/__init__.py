"""Quality gates: each a file; each drops a class of bad rows and keeps the row with its reason."""

from llava.expansion.gates.base import Finding, Gate, Sample
from llava.expansion.gates.panel import Panel

__all__ = ["Finding", "Gate", "Panel", "Sample"]
