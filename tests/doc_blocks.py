"""The code blocks of README and docs, and what each says it needs.

A comment above a block says why no test runs it as it stands: `<!-- needs: cluster -->`, with a reason of `NEEDS`;
`<!-- shows: module.Class -->` says that it lists the fields of a class.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[1]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
NEEDS = {
    "cluster": "a Kubernetes with Kubeflow",
    "gpu": "a GPU",
    "benchmarks": "question files and images that their publishers hand out",
    "endpoint": "a judge or teacher that is paid for",
    "gguf": "a file of 90 MB, which tests/model/test_smollm2.py fetches for the same command",
    "minutes": "a quarter of an hour: the demo itself, which tests/demo runs in small, and this suite",
}
_BLOCK = re.compile(r"(?:^<!-- (needs|shows): (\S+) -->\n)?^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: `needs` and `shows` are what the comment above it says, or empty."""

    page: str
    number: int
    language: str
    text: str
    needs: str = ""
    shows: str = ""

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def blocks(*languages: str) -> list[Block]:
    """All blocks in the order of `PAGES`; with languages, those of them that need nothing special."""
    found = []
    for page in PAGES:
        for number, (kind, said, language, text) in enumerate(_BLOCK.findall(page.read_text()), start=1):
            block = Block(page.name, number, language, text, **({kind: said} if kind else {}))
            if not languages or (language in languages and not kind):
                found.append(block)
    return found
