"""What a model is: the hash of its files' contents, so that no model is ever given another one's answers.

File names and sizes are the same for any two models of one architecture, and a manifest says what was saved, not what
lies there now.
"""

from __future__ import annotations

from pathlib import Path

from llava.contents import verified
from llava.errors import SettingsError
from llava.evaluation.predictions import fingerprint


def identity_of(folder: str, field: str) -> str:
    """Short hash of the contents of a local folder, or of a hub id's files in the local hub cache.

    Raises:
        SettingsError: a file is not what the folder's manifest says, or a hub id was never fetched.
    """
    return fingerprint(verified(_snapshot(folder, field), field))


def _snapshot(folder: str, field: str) -> Path:
    if Path(folder).is_dir():
        return Path(folder)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(folder, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise SettingsError(
            f"{field}: {folder}: not in the local hub cache, so it cannot be told from others"
        ) from error
