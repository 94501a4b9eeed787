"""Answers on disk or in object storage as they come, so that a killed run resumes where it stopped.

While a model answers, each batch is a file of its own below `<name>.parts/`, written atomically; when all questions are
answered they become one `<name>.jsonl`. Every row carries a fingerprint of what decides that answer (model, prompt,
images, settings): a row of another fingerprint is not reused, and a run over more questions reuses those of a smaller.
Beside `<name>.jsonl` stands `<name>.about.json`, which says whose answers they are: another model that answers into the
same folder moves them aside, and has parts of its own, so neither overwrites the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llava import storage
from llava.data.range_file import buffered
from llava.evaluation.about import About, about_uri
from llava.evaluation.benchmark import Profile, Question
from llava.json_lines import lines_in, lines_of
from llava.manifest import sha256
from llava.parsing import Malformed, parse_rows

_WHOSE = re.compile(r"[0-9a-f]{4,64}")
_ROW_BYTES = 1 << 10  # about
_PART = re.compile(r"[\w.-]*\d{6}\.jsonl")


class PredictionLog:
    """The answers of one model to one benchmark.

    Args:
        folder: URI of the predictions folder.
        name: of the model's file in it.
        fingerprints: by question id, of everything that decides the answer.
        writer: names this process's parts where several answer at once.
        whose: short hash of the model and its engine; empty where only one model ever answers here.
    """

    def __init__(
        self, folder: str, name: str, fingerprints: Mapping[str, str], *, writer: str = "", whose: str = ""
    ) -> None:
        self.uri = storage.join(folder, f"{name}.jsonl")
        self.answers: dict[str, str] = {}
        self._fingerprints = fingerprints
        self._folder, self._name, self._whose = folder, name, whose
        own = f"{name}-{whose}" if whose else name
        self._parts = storage.join(folder, f"{own}.parts")
        self._aside_uri = storage.join(folder, f"{own}.not-asked.jsonl")
        self._kept_uri = storage.join(folder, f"{own}.jsonl")  # where another model has moved ours
        self._aside: dict[str, str] = {}  # whole rows of questions that are not asked this time
        self._writer = writer
        self._next = 0
        self.read()

    def read(self) -> None:
        """Take what is on disk, other writers' parts included."""
        for uri in dict.fromkeys((self._aside_uri, self._kept_uri, self.uri)):
            if uri == self.uri and self._owner() not in ("", self._whose):
                continue
            if storage.exists(uri):
                with buffered(uri) as file:  # one line at a time, however many there are
                    for _, line in lines_in(file):
                        self._take(line)
        for item in storage.list_files(self._parts):
            if not _PART.fullmatch(item.path):
                continue  # not written by us: an editor's copy, a store's own marker
            for _, row in lines_of(storage.read_text(storage.join(self._parts, item.path))):
                self._take(row.encode())
            number = item.path.removesuffix(".jsonl").removeprefix(self._writer)
            if number.isdigit():
                self._next = max(self._next, int(number) + 1)

    def add(self, answers: Mapping[str, str]) -> None:
        """Write one batch of answers, by question id; durable when this returns."""
        rows = [{"id": key, "answer": answer, "of": self._fingerprints[key]} for key, answer in answers.items()]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        storage.write_text(storage.join(self._parts, f"{self._writer}{self._next:06d}.jsonl"), text)
        self._next += 1
        self.answers.update(answers)

    def finish(
        self,
        questions: Sequence[Question],
        scores: Mapping[str, Mapping[Profile, float]],
        more: Callable[[str], Mapping[str, Any]] = lambda key: {},
        about: About | None = None,
    ) -> None:
        """Write the whole file, in the order of the questions and with scores, and drop the parts.

        Args:
            questions: all that were asked.
            scores: by question id; a question whose right answer is not known here has none.
            more: further fields of a row, from a question's id; called as rows are written.
            about: what is known of the answers as a whole, for `<name>.about.json`.
        """
        if self._aside:  # first, so that nothing is lost between the two
            storage.write_text(self._aside_uri, "".join(line + "\n" for line in self._aside.values()))
        self._make_room()
        with storage.open_writer(self.uri, len(self.answers) * _ROW_BYTES) as file:
            for question in questions:
                if question.id in self.answers:
                    row = self._row(question, scores.get(question.id, {})) | dict(more(question.id))
                    file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        if about is not None:
            storage.write_json(about_uri(self.uri), about.model_dump(mode="json"))
        storage.delete(self._parts)
        if self._kept_uri != self.uri and storage.exists(self._kept_uri):
            for uri in (self._kept_uri, about_uri(self._kept_uri)):
                storage.delete(uri)

    def _row(self, question: Question, scores: Mapping[Profile, float]) -> dict[str, Any]:
        return {
            "id": question.id,
            "kind": question.kind,
            "cluster": question.cluster,
            "images": [ref if len(ref) < 300 else ref[:40] + "…" for ref in question.images],
            "question": question.text,
            "expected": question.expected,
            "answer": self.answers[question.id],
            "scores": dict(scores),
            "of": self._fingerprints[question.id],
        }

    def _owner(self) -> str:
        """Whose answers `<name>.jsonl` holds; empty where nothing says."""
        uri = about_uri(self.uri)
        if not self._whose or not storage.exists(uri):
            return ""
        found = storage.read_json(uri)
        return str(found.get("whose", "")) if isinstance(found, dict) else ""

    def _make_room(self) -> None:
        """Move another model's finished answers aside; they keep their name with its hash behind it."""
        owner = self._owner()
        if owner in ("", self._whose) or not _WHOSE.fullmatch(owner) or not storage.exists(self.uri):
            return
        kept = storage.join(self._folder, f"{self._name}-{owner}.jsonl")
        for source, target in ((self.uri, kept), (about_uri(self.uri), about_uri(kept))):
            storage.write_bytes(target, storage.read_bytes(source))
            storage.delete(source)

    def _take(self, line: bytes) -> None:
        try:
            row = parse_rows(line.decode("utf-8"))
            key = row["id"]
            if not isinstance(key, str) or not isinstance(row["answer"], str):
                return
        except (Malformed, UnicodeDecodeError, KeyError, TypeError):
            return  # a line nobody can read answers no question; it is asked again
        if key not in self._fingerprints:
            self._aside[key] = line.decode("utf-8")
        elif row.get("of") == self._fingerprints[key]:
            self.answers[key] = row["answer"]


def fingerprint(*parts: object) -> str:
    """Short hash of JSON-able parts."""
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode())[:16]


def question_fingerprints(questions: Sequence[Question], *decides: object) -> dict[str, str]:
    """For each question, by id, the hash of its prompt, its images and whatever else decides an answer."""
    common = fingerprint(*decides)
    return {question.id: fingerprint(common, question.text, question.images) for question in questions}
