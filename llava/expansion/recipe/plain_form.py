"""What a reply plainly means, where it is not quite in the form that was asked for.

Models wrap replies in code fences, greet before they begin, print labels in bold or as headings, number them, or draw
another line between blocks. Nothing is guessed: the labels must be there and in turn.
"""

from __future__ import annotations

import re

_FENCE = re.compile(r"^\s*(?:```+|~~~+)\s*[\w-]*\s*$")
_RULE = re.compile(r"^\s*(?:={2,}|-{2,}|\*{3,}|_{3,})\s*$")
_LONGEST_PREAMBLE = 300
_GREETING = re.compile(
    r"\A\s*(?:sure|certainly|of course|absolutely|okay|ok|great|here(?:['’]s| is| are)|below (?:is|are))\b"
    r"[^\n]{0,200}:\s*\n",
    re.IGNORECASE,
)


def without_wrapping(text: str) -> str:
    """A reply without fences around it and without a greeting in front of it."""
    lines = text.strip().split("\n")
    if len(lines) > 2 and _FENCE.match(lines[0]) and _FENCE.match(lines[-1]):
        lines = lines[1:-1]
    return _GREETING.sub("", "\n".join(lines)).strip()


def in_form(text: str, question_label: str, answer_label: str, separator: str) -> str | None:
    """The reply with plain labels and separators; None where it has no such labels, or too much stands before them."""
    words = [label.strip().rstrip(":") for label in (question_label, answer_label)]
    heading = re.compile(
        r"^\s*(?:#{1,6}\s*)?(?:\d+[.)]\s*)?[*_]{0,3}"
        rf"(?P<label>{'|'.join(map(re.escape, words))})"
        r"(?:\s*#?\d+)?\s*[*_]{0,3}\s*:\s*[*_]{0,3}\s*(?P<rest>.*)$",
        re.IGNORECASE,
    )
    blocks: list[tuple[str, list[str]]] = []
    before: list[str] = []
    closed = False
    for line in text.split("\n"):
        if _FENCE.match(line):
            continue
        if _RULE.match(line) or line.strip() == separator:
            closed = True
            continue
        found = heading.match(line)
        if found:
            is_question = found["label"].lower() == words[0].lower()
            blocks.append((question_label if is_question else answer_label, [found["rest"]]))
            closed = False
        elif not blocks:
            before.append(line)
        elif not closed:
            blocks[-1][1].append(line)
        elif line.strip() and len(blocks) % 2:
            return None  # something unlabelled between a question and its answer
        # What stands after the last answer and a line is a farewell.
    if not blocks or len("\n".join(before).strip()) > _LONGEST_PREAMBLE:
        return None
    return f"\n{separator}\n".join(f"{label}\n" + "\n".join(lines).strip() for label, lines in blocks)
