"""Where figures come from: the model and what it was made of, stage by stage, the questions, the code, the date."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

from llava import __version__, storage
from llava.errors import UserError
from llava.evaluation.benchmark import Question
from llava.evaluation.predictions import fingerprint
from llava.manifest import Manifest, read_manifest
from llava.revision import revision

Fact = tuple[str, str, str]  # name, value, address (or empty)
_DEEPEST = 4


def data_hash(questions: Sequence[Question]) -> str:
    """Hash of what is asked and what is right: equal figures stand on equal questions."""
    return fingerprint([[item.id, item.text, list(item.images), item.expected] for item in questions])


def facts(
    models: Mapping[str, str],
    questions: Mapping[str, tuple[str, Sequence[Question]]],
    engine: str,
    report_uri: str,
    spent: Mapping[str, float],
) -> list[Fact]:
    """Lines for a report.

    Args:
        models: URI of each model by what it is called.
        questions: per benchmark, where they are from, and they.
        engine: who computed the answers.
        report_uri: where the report goes; places beside it become links.
        spent: name -> amount.
    """
    lines: list[Fact] = [("date", _date(time.time()), ""), ("code", _code(), ""), ("engine", engine, "")]
    for name, (uri, items) in questions.items():
        value = f"{len(items)} questions from {uri}, data hash {data_hash(items)}"
        lines.append((f"questions: {name}", value, _link(uri, report_uri)))
    for name, uri in models.items():
        lines += _made_of(name, uri, report_uri, 0)
    return [*lines, *((name.replace("_", " "), f"{amount:.2f}", "") for name, amount in spent.items())]


def code_facts() -> dict[str, str]:
    """The code's version, commit and image, for machines."""
    return {"version": __version__, "commit": revision(), "image": os.environ.get("LLAVA_IMAGE", "")}


def _code() -> str:
    parts = [f"llava {__version__}"]
    if revision():
        parts.append(f"commit {revision()}")
    if os.environ.get("LLAVA_IMAGE"):
        parts.append(f"image {os.environ['LLAVA_IMAGE']}")
    return ", ".join(parts)


def _made_of(name: str, uri: str, report_uri: str, depth: int) -> list[Fact]:
    """An artifact, its stage's report, and what it was made of, as far as manifests tell."""
    indent = "· " * depth
    manifest = _manifest(uri)
    if manifest is None:
        return [(indent + name, uri, _link(uri, report_uri))]
    made = f"{uri} ({manifest.stage}, {_date(manifest.created_unix)}, llava {manifest.code_version}"
    made += f", data hash {manifest.data_hash[:16]}" if manifest.data_hash else ""
    made += f", image {manifest.image}" if manifest.image else ""
    lines: list[Fact] = [(indent + name, made + ")", _link(uri, report_uri))]
    report = storage.join(uri.rstrip("/").rpartition("/")[0] or ".", "report.html")
    if _exists(report):
        lines.append((f"{indent}· report of {manifest.stage}", report, _link(report, report_uri)))
    if depth < _DEEPEST:
        for parent, place in manifest.parents.items():
            if place:
                lines += _made_of(parent, place, report_uri, depth + 1)
    return lines


def _manifest(uri: str) -> Manifest | None:
    for folder in (True, False):
        try:
            return read_manifest(uri, folder=folder)
        except UserError:
            continue
    return None


def _exists(uri: str) -> bool:
    try:
        return storage.exists(uri)
    except UserError:
        return False


def _link(uri: str, report_uri: str) -> str:
    """An address that a browser can follow from the report: an http URL, or a local file by a relative path."""
    if uri.startswith(("http://", "https://")):
        return uri
    if storage.is_remote(uri) or storage.is_remote(report_uri) or "," in uri or not _exists(uri):
        return ""
    here = storage.local_path(report_uri).resolve().parent
    return os.path.relpath(storage.local_path(uri).resolve(), here)


def _date(unix: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix))
