"""Answers on disk or in object storage as they come, so that a killed run resumes where it stopped.

While a model answers, each batch is a file of its own below `<name>.parts/`, written atomically; when all questions are
answered they become one `<name>.jsonl`. Every row carries a fingerprint of what decides an answer (model, prompt,
settings): rows of another fingerprint are not reused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from llava import storage
from llava.evaluation.benchmark import Profile, Question
from llava.json_lines import lines_of
from llava.manifest import sha256


class PredictionLog:
    """The answers of one model to one benchmark.

    Args:
        folder: URI of the predictions folder.
        name: `finetuned`, `blank` or `stage1`.
        fingerprint: of everything that decides an answer.
    """

    def __init__(self, folder: str, name: str, fingerprint: str) -> None:
        self.uri = storage.join(folder, f"{name}.jsonl")
        self.fingerprint = fingerprint
        self.answers: dict[str, str] = {}
        self._parts = storage.join(folder, f"{name}.parts")
        self._next = 0
        if storage.exists(self.uri):
            self._take(self.uri)
        for item in storage.list_files(self._parts):
            self._take(storage.join(self._parts, item.path))
            self._next = max(self._next, int(item.path.removesuffix(".jsonl")) + 1)

    def add(self, answers: Mapping[str, str]) -> None:
        """Write one batch of answers, by question id; durable when this returns."""
        rows = [{"id": key, "answer": answer, "of": self.fingerprint} for key, answer in answers.items()]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        storage.write_text(storage.join(self._parts, f"{self._next:06d}.jsonl"), text)
        self._next += 1
        self.answers.update(answers)

    def finish(self, questions: Sequence[Question], scores: Mapping[str, Mapping[Profile, float]]) -> None:
        """Write the whole file, in the order of the questions and with scores, and drop the parts."""
        lines = []
        for question in questions:
            if question.id in self.answers:
                row = {
                    "id": question.id,
                    "kind": question.kind,
                    "images": [ref if len(ref) < 300 else ref[:40] + "…" for ref in question.images],
                    "question": question.text,
                    "expected": question.expected,
                    "answer": self.answers[question.id],
                    "scores": dict(scores[question.id]),
                    "of": self.fingerprint,
                }
                lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        storage.write_text(self.uri, "".join(lines))
        storage.delete(self._parts)

    def _take(self, uri: str) -> None:
        for _, line in lines_of(storage.read_text(uri)):
            row = json.loads(line)
            if row.get("of") == self.fingerprint:
                self.answers[row["id"]] = row["answer"]


def fingerprint(*parts: object) -> str:
    """Short hash of JSON-able parts."""
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode())[:16]
