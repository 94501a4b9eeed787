"""LLaVA rows, and writing them as the JSON list that the original's loader reads."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from llava import local_files, storage
from llava.errors import StorageError
from llava.image_token import IMAGE_TOKEN


@dataclass(frozen=True, slots=True)
class Row:
    """One training row; `turns` are (human, assistant) texts, the image token already in the first human text."""

    id: str
    image: str
    kind: str
    turns: tuple[tuple[str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """The row as LLaVA's files have it."""
        conversations = []
        for human, gpt in self.turns:
            conversations += [{"from": "human", "value": human}, {"from": "gpt", "value": gpt}]
        return {"id": self.id, "image": self.image, "conversations": conversations}


def with_image(question: str, where: str) -> str:
    """The first human text: the image token before or after the question; alone where there is no question."""
    if not question:
        return IMAGE_TOKEN
    return f"{IMAGE_TOKEN}\n{question}" if where == "before" else f"{question}\n{IMAGE_TOKEN}"


class RowFile:
    """Write dicts one by one, as a JSON list with a row a line or as JSON lines; atomic, nothing held in memory.

    A context manager: the file appears under its name only when the block ends without an error.
    """

    def __init__(self, uri: str, *, lines: bool = False) -> None:
        self.uri = uri
        self.count = 0
        self._lines = lines
        self._remote = storage.is_remote(uri)
        self._temporary = tempfile.TemporaryDirectory(prefix="llava-rows-") if self._remote else None
        target = Path(self._temporary.name) / "rows" if self._temporary else storage.local_path(uri)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._target = target
        self._partial = target.with_name(f"{local_files.TEMPORARY}{target.name}")
        self._file = self._partial.open("w", encoding="utf-8")
        if not lines:
            self._file.write("[")

    def add(self, value: dict[str, Any]) -> None:
        """Append one row."""
        between = "" if self._lines else (",\n" if self.count else "\n")
        text = between + json.dumps(value, ensure_ascii=False, allow_nan=False) + ("\n" if self._lines else "")
        try:
            self._file.write(text)
        except OSError as failure:
            raise self._failed(failure) from failure
        self.count += 1

    def __enter__(self) -> RowFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._file:
                if kind is None:
                    self._file.write("" if self._lines else "\n]\n")
                    self._file.flush()
                    os.fsync(self._file.fileno())
            if kind is None and not self._remote:
                local_files.put_in_place(self._partial, self._target)
                local_files.sync_folder(self._target.parent)
        except OSError as failure:
            self._clear()
            if kind is None:
                raise self._failed(failure) from failure
            return  # closing writes what is still buffered; the error that is on its way says more
        if kind is None and self._remote:
            storage.upload(self._partial, self.uri)
        self._clear()

    def _failed(self, failure: OSError) -> StorageError:
        return StorageError(f"{self.uri}: {local_files.explain(failure, self._partial)}")

    def _clear(self) -> None:
        self._partial.unlink(missing_ok=True)
        if self._temporary:
            self._temporary.cleanup()
