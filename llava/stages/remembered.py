"""A user's error is paid for once: its message stays in the store, and a retried pod ends with it at once.

Where Argo starts failed pods again (policy OnFailure, what 2.14 to 2.16 do without a word in their ConfigMap; or
Always), a wrong setting would cost every retry a node, a pull and a load. The note carries a fingerprint of stage,
settings, inputs and image, so a changed one is tried.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from llava import storage
from llava.errors import StoppedError, TransientError, UserError
from llava.storage.calls import Absent
from llava.validation import validate

# kfp before 2.16 does not tell a pod which attempt it is; the pauses between ours end within this.
_YOUNG_S = 3600.0


class RememberedError(UserError):
    """An earlier attempt of this very task failed by something only its user can change."""


class FailureNote(BaseModel):
    """What an attempt leaves."""

    model_config = ConfigDict(extra="ignore")

    format_version: int = 1
    stage: str
    message: str
    written_unix: float


def note_uri(folder: str, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Where the note of a task stands: beside the outputs' folder, whose name changes when the task is placed anew.

    Args:
        folder: that of the task's outputs.
        stage: its name.
        settings: as plain values.
        inputs: input name -> URI.
    """
    what = json.dumps([stage, dict(settings), dict(inputs), os.environ.get("LLAVA_IMAGE", "")], sort_keys=True)
    name = f"llava-failure-{stage}-{hashlib.sha256(what.encode()).hexdigest()[:16]}.json"
    return storage.join(folder.rstrip("/").rpartition("/")[0], name)


def raise_remembered(uri: str) -> None:
    """End at once with what an earlier attempt of the same task said.

    Raises:
        RememberedError: there is a note, and this is a retry.
    """
    index = os.environ.get("KFP_RETRY_INDEX", "")
    if index == "0":
        return  # the first attempt, or a person who pressed Retry
    try:
        note = validate(FailureNote, storage.read_json(uri), uri)
    except Absent:
        return
    if not index.isdigit() and time.time() - note.written_unix > _YOUNG_S:
        return
    raise RememberedError(
        f"an earlier attempt ended with: {note.message}\n(settings, inputs and image are the same, so this one was not "
        f"begun; put it right and start a new run, or delete {uri} to try the same again)"
    )


def remember(uri: str, stage: str, error: UserError) -> None:
    """Leave the note for the next attempt, unless another try may well succeed."""
    if isinstance(error, TransientError | StoppedError | RememberedError):
        return
    note = FailureNote(stage=stage, message=str(error), written_unix=time.time())
    try:
        storage.write_json(uri, note.model_dump(mode="json"))
    except UserError:
        return  # the error itself is what counts, and it is about to be told
