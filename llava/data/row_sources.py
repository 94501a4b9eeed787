"""What a data URI names: a file of rows, several, a folder of them, a data set of the hub; and the files behind it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from llava import storage
from llava.errors import DataError, SettingsError, StorageError

JSON, TABLE, TAR, MIXTURE = "json", "table", "tar", "mixture"
FORMS = {
    ".json": JSON,
    ".jsonl": JSON,
    ".ndjson": JSON,
    ".parquet": TABLE,
    ".arrow": TABLE,
    ".tar": TAR,
    ".yaml": MIXTURE,
    ".yml": MIXTURE,
}
HUB = "hf://datasets/"
_KNOWN = "JSON, JSON lines, .parquet, .arrow, .tar (webdataset), a mixture (.yaml)"
# Files that data sets bring beside their rows.
_NO_ROWS = ("dataset_info.json", "state.json", "dataset_dict.json", "dataset_infos.json", "index.json", "manifest.json")
_HUB_NAME = re.compile(r"^(?P<name>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+?))?(:(?P<pattern>.+))?$")


def form_of(uri: str) -> str:
    """`json`, `table`, `tar` or `mixture`, by the file's name; a name without a known ending is JSON."""
    return next((form for ending, form in FORMS.items() if uri.lower().endswith(ending)), JSON)


def files_of(uri: str) -> list[str]:
    """The files of rows behind a data URI, in a fixed order.

    Args:
        uri: a file; a folder; a pattern (`data/*.parquet`); `hf://datasets/owner/name[@revision][:pattern]`; or
            several of these with commas between.

    Raises:
        DataError: nothing there that holds rows, or files of several forms in one folder.
        StorageError: a place cannot be read.
        SettingsError: the hub has no such data set, or cannot be asked.
    """
    parts = [part.strip() for part in uri.split(",") if part.strip()]
    if not parts:
        raise DataError(f"data: found {uri!r}; expected a file of rows, or a folder of such files")
    if len(parts) > 1 and not storage.is_remote(uri) and "://" not in uri and Path(uri).exists():
        return [uri]  # a comma in a file's name
    return [file for part in parts for file in _files(part)]


def _files(uri: str) -> list[str]:
    if uri.startswith(HUB):
        return _hub_files(uri)
    folder, _, name = uri.rstrip("/").rpartition("/")
    if any(sign in name for sign in "*?["):
        named = [item.path for item in storage.list_files(folder or ".") if fnmatch(item.path, name)]
        if not named:
            raise DataError(f"{uri}: no file of that pattern")
        return [storage.join(folder, one) if folder else one for one in sorted(named)]
    if name.lower().endswith((".csv", ".tsv")):
        raise DataError(f"{uri}: found a table of captions; `llava expand --annotations-uri {uri}` makes rows of it")
    if _is_folder(uri):
        return _held(uri, [item.path for item in storage.list_files(uri)])
    return [uri]


def _is_folder(uri: str) -> bool:
    if not storage.is_remote(uri):
        try:
            return storage.local_path(uri).is_dir()
        except (OSError, ValueError):
            return False
    return storage.size(uri) is None and storage.exists(uri)


def _held(folder: str, paths: Sequence[str]) -> list[str]:
    """The files of rows in a folder: those of one form."""
    rows = sorted(
        path
        for path in paths
        if path.lower().endswith(tuple(FORMS))
        and form_of(path) != MIXTURE
        and path.rsplit("/", 1)[-1] not in _NO_ROWS
        and not any(part.startswith(".") for part in path.split("/"))
    )
    forms = sorted({form_of(path) for path in rows})
    if not rows:
        shown = ", ".join(sorted(paths)[:5]) or "nothing"
        raise DataError(f"{folder}: no file of rows in it (found {shown}); expected {_KNOWN}")
    if len(forms) > 1:
        raise DataError(f"{folder}: holds rows in several forms ({', '.join(rows[:4])}, ...); name the files meant")
    return [storage.join(folder, path) for path in rows]


def _hub_files(uri: str) -> list[str]:
    found = _HUB_NAME.match(uri.removeprefix(HUB))
    if found is None:
        raise SettingsError(f"data: found {uri!r}; expected {HUB}owner/name, with @revision or :pattern where wanted")
    from llava import extras

    extras.require(f"data {uri}", "train", ["huggingface_hub"])
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = found["pattern"] or ""
    patterns = [wanted] if wanted else [f"*{ending}" for ending in FORMS]
    try:
        folder = snapshot_download(
            found["name"], repo_type="dataset", revision=found["revision"], allow_patterns=patterns
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise SettingsError(f"data: {uri}: the hub does not give it: {first}") from error
    held = [item.path for item in storage.list_files(folder)]
    try:
        return _held(folder, [path for path in held if not wanted or fnmatch(path, wanted)])
    except StorageError as error:
        raise DataError(f"{uri}: {error}") from error
