"""Where a benchmark's files stand in the folders people have, so that naming the folder is enough.

A benchmark lists the forms its files come in (LLaVA-1.5's `playground/data/eval`, the official release, ...), best
first; each form is a few files and where to get them. A folder is searched for the first form that is there whole; when
none is, the error says for the nearest one what is missing and where it comes from. Files may also be named one by one,
separated by commas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from llava import storage
from llava.errors import DataError

EVAL_ZIP = "eval.zip of LLaVA-1.5 (docs/Evaluation.md of haotian-liu/LLaVA)"
_ENDINGS = (".json", ".jsonl", ".tsv", ".csv", ".txt", ".p", ".parquet")


@dataclass(frozen=True)
class Part:
    """One file of a form.

    Attributes:
        key: how the benchmark calls it.
        source: where it comes from, for who does not have it.
        paths: where it may stand below the folder, the usual place first.
    """

    key: str
    source: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Form:
    """A way a benchmark's files are handed out: its name, and the files that must all be there."""

    name: str
    parts: tuple[Part, ...]


def is_folder(uri: str) -> bool:
    """Whether a `questions_uri` names a folder rather than files: one place, without the ending of a file."""
    return "," not in uri and not uri.rstrip("/").lower().endswith(_ENDINGS)


def folder_of(uri: str) -> str:
    """The folder a `questions_uri` is, or its first file stands in."""
    first = uri.split(",", 1)[0].strip()
    if is_folder(uri):
        return first
    return first.rpartition("/")[0] or ("" if storage.is_remote(first) else ".")


def find(uri: str, forms: Sequence[Form]) -> dict[str, str]:
    """The files of the first form that is there whole, by the keys of its parts.

    Args:
        uri: a folder, or files separated by commas (told apart by their usual names, or else by their order).
        forms: the forms they may have.

    Raises:
        DataError: nothing named, or no form is whole; the message says what is missing and where it comes from.
    """
    if is_folder(uri):
        return _in_folder(uri, forms)
    files = [part.strip() for part in uri.split(",") if part.strip()]
    for form in forms:
        found = _by_name(files, form)
        if found:
            return found
    for form in forms:
        if len(form.parts) == len(files) and all(
            _ending(file) == _ending(part.paths[0]) for file, part in zip(files, form.parts, strict=True)
        ):
            return {part.key: file for file, part in zip(files, form.parts, strict=True)}
    wanted = "; or ".join(f"{form.name}: {', '.join(part.paths[0] for part in form.parts)}" for form in forms)
    raise DataError(f"questions_uri: found {len(files)} files ({uri}); expected {wanted}; or a folder that holds them")


def beside(uri: str, *paths: str) -> str | None:
    """The first of `paths` that is there below the folder of a `questions_uri`: a file that is good to have."""
    folder = folder_of(uri)
    return next((place for path in paths if storage.exists(place := storage.join(folder, path))), None)


def _in_folder(folder: str, forms: Sequence[Form]) -> dict[str, str]:
    best: tuple[int, Form, Mapping[str, str]] | None = None
    for form in forms:
        found = {part.key: place for part in form.parts if (place := beside(folder, *part.paths))}
        if len(found) == len(form.parts):
            return found
        if best is None or len(found) > best[0]:
            best = (len(found), form, found)
    assert best is not None
    _, form, there = best
    missing = "; ".join(f"{part.paths[0]} (from {part.source})" for part in form.parts if part.key not in there)
    others = [other.name for other in forms if other is not form]
    also = f". Other forms that are read: {'; '.join(others)}" if others else ""
    raise DataError(f"{folder}: not all of {form.name} is there: missing {missing}{also}")


def _by_name(files: Sequence[str], form: Form) -> dict[str, str] | None:
    if len(files) != len(form.parts):
        return None
    found: dict[str, str] = {}
    for file in files:
        name = file.rpartition("/")[2]
        for part in form.parts:
            if part.key not in found and any(fnmatch(name, path.rpartition("/")[2]) for path in part.paths):
                found[part.key] = file
                break
    return found if len(found) == len(files) else None


def _ending(path: str) -> str:
    return path.rpartition(".")[2].lower()
