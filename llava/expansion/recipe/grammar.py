"""The form of a teacher's reply, and reading it: strictly, but for what is plainly meant (see plain_form).

`question_answer`: blocks `Question:` and `Answer:` in turn, separated by lines that are exactly the separator
(`===` in the original's data). `answer`: the reply is one answer as it stands.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llava.expansion.recipe.plain_form import in_form, without_wrapping
from llava.validation import Strict


class GrammarError(ValueError):
    """The reply is not of the form asked for; the message says where."""


class Grammar(Strict):
    """How a reply is laid out; part of a kind's recipe."""

    form: Literal["question_answer", "answer"]
    question_label: str = "Question:"
    answer_label: str = "Answer:"
    separator: str = Field("===", min_length=1)
    min_turns: int = Field(1, ge=1, description="Fewest question-answer pairs")
    max_turns: int = Field(40, ge=1, description="Most question-answer pairs")
    min_answer_words: int = Field(1, ge=1)

    def parse(self, reply: str) -> list[tuple[str, str]]:
        """`(question, answer)` pairs of a reply; for `answer` one pair with an empty question.

        Raises:
            GrammarError: a label is missing or out of turn, a part is empty, too few or too many pairs.
        """
        text = without_wrapping(reply.replace("\r\n", "\n"))
        if self.form == "answer":
            pairs = [("", self._answer(text, "the reply"))]
        else:
            try:
                pairs = self._pairs(text)
            except GrammarError:
                meant = in_form(text, self.question_label, self.answer_label, self.separator)
                if meant is None or meant == text:
                    raise
                pairs = self._pairs(meant)
        if not self.min_turns <= len(pairs) <= self.max_turns:
            raise GrammarError(f"{len(pairs)} question-answer pairs; expected {self.min_turns} to {self.max_turns}")
        return pairs

    def format(self, pairs: list[tuple[str, str]]) -> str:
        """The reply text that `parse` reads back as `pairs`."""
        if self.form == "answer":
            return pairs[0][1]
        parts = []
        for question, answer in pairs:
            parts += [f"{self.question_label}\n{question}", f"{self.answer_label}\n{answer}"]
        return f"\n{self.separator}\n".join(parts)

    def _answer(self, text: str, where: str) -> str:
        if not text:
            raise GrammarError(f"{where} is empty")
        for line in text.splitlines():
            if line.strip() == self.separator or line.strip() in (self.question_label, self.answer_label):
                raise GrammarError(f"{where} holds the line {line.strip()!r}")
        if len(text.split()) < self.min_answer_words:
            raise GrammarError(f"{where} has {len(text.split())} words; expected at least {self.min_answer_words}")
        return text

    def _pairs(self, text: str) -> list[tuple[str, str]]:
        blocks: list[list[str]] = [[]]
        for line in text.split("\n"):
            if line.strip() == self.separator:
                blocks.append([])
            else:
                blocks[-1].append(line)
        parts = ["\n".join(block).strip() for block in blocks]
        if parts and not parts[-1]:
            parts.pop()  # a separator after the last answer is harmless
        if len(parts) % 2:
            raise GrammarError(f"{len(parts)} blocks; expected questions and answers in pairs")
        pairs = []
        for index in range(0, len(parts), 2):
            question = self._labelled(parts[index], self.question_label, index)
            answer = self._labelled(parts[index + 1], self.answer_label, index + 1)
            pairs.append((question, self._answer(answer, f"block {index + 2}")))
        return pairs

    def _labelled(self, part: str, label: str, index: int) -> str:
        if not part.startswith(label):
            raise GrammarError(f"block {index + 1} starts with {part[:30]!r}; expected {label!r}")
        body = part[len(label) :].strip()
        if not body:
            raise GrammarError(f"block {index + 1} is empty after {label!r}")
        if self.question_label in body.splitlines() or self.answer_label in body.splitlines():
            raise GrammarError(f"block {index + 1} holds a second label")
        return body
