"""Where figures come from: the model and what it was made of, stage by stage, the questions, the code, the date."""

from __future__ import annotations

import os
import posixpath
import time
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from llava import __version__, storage
from llava.errors import UserError
from llava.evaluation.benchmark import Question
from llava.evaluation.predictions import fingerprint
from llava.launcher_paths import RECORD_NAME, artifact_uri
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


def _made_of(name: str, place: str, report_uri: str, depth: int) -> list[Fact]:
    """An artifact, its stage's report, and what it was made of, as far as manifests tell."""
    indent, uri = "· " * depth, artifact_uri(place)
    manifest = _manifest(place)
    if manifest is None:
        return [(indent + name, uri, _link(place, report_uri))]
    made = f"{uri} ({manifest.stage}, {_date(manifest.created_unix)}, llava {manifest.code_version}"
    made += f", data hash {manifest.data_hash[:16]}" if manifest.data_hash else ""
    made += f", image {manifest.image}" if manifest.image else ""
    lines: list[Fact] = [(indent + name, made + ")", _link(place, report_uri))]
    if report := _report_beside(uri):
        lines.append((f"{indent}· report of {manifest.stage}", report, _link(report, report_uri)))
    if depth < _DEEPEST:
        for parent, made_from in manifest.parents.items():
            if made_from:
                lines += _made_of(parent, made_from, report_uri, depth + 1)
    return lines


def _report_beside(artifact: str) -> str:
    """The report of the execution that made an artifact, empty where there is none: as the execution's record says, or
    `report.html` where a stage was run by hand."""
    folder = artifact.rstrip("/").rpartition("/")[0] or "."
    try:
        record = storage.join(folder, RECORD_NAME)
        if storage.exists(record):
            found = storage.read_json(record)
            outputs = found.get("outputs") if isinstance(found, dict) else None
            return str(outputs.get("report") or "") if isinstance(outputs, dict) else ""
    except UserError:
        return ""
    by_hand = storage.join(folder, "report.html")
    return by_hand if _exists(by_hand) else ""


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


def _link(place: str, report_uri: str) -> str:
    """An address that a browser can follow from the report; empty where there is none.

    An http URL is one itself. Between two local files, and between two objects of one bucket, it is the way from one to
    the other: such a link holds wherever the tree is looked at, on a disk, through a web server or in a copy.
    """
    if place.startswith(("http://", "https://")):
        return place
    place, report_uri = artifact_uri(place), artifact_uri(report_uri)
    if "," in place:
        return ""
    if storage.is_remote(place) and storage.is_remote(report_uri):
        (bucket, key), (own_bucket, own_key) = _bucket_and_key(place), _bucket_and_key(report_uri)
        return quote(posixpath.relpath(key, posixpath.dirname(own_key))) if bucket == own_bucket else ""
    if storage.is_remote(place) or storage.is_remote(report_uri) or not _exists(place):
        return ""
    here = storage.local_path(report_uri).resolve().parent
    return quote(os.path.relpath(storage.local_path(place).resolve(), here))


def _bucket_and_key(uri: str) -> tuple[str, str]:
    scheme, _, rest = uri.partition("?")[0].partition("://")
    bucket, _, key = rest.partition("/")
    return f"{scheme}://{bucket}", f"/{key}"


def _date(unix: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix))
