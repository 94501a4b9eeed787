"""Tasks that were started and did not end well: where they resume.

On a cluster a retried task gets the same output places again, and a stage resumes there from what it wrote before:
training from its last checkpoint, an expansion from its ledger. kfp.local gives every run new places. So a local run
keeps a note of the places of each task it starts, until the task has ended well; the same task (image, command and
inputs) of a later run is sent to these places.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any


@dataclass
class Attempt:
    """A task under way.

    Attributes:
        run: run whose places the task writes to.
        resumed: an earlier attempt already wrote there.
    """

    run: str
    resumed: bool = False
    _note: IO[str] | None = None

    def end(self, *, well: bool) -> None:
        """The task has ended; only when it ended well the note goes."""
        if self._note is not None:
            if well:
                Path(self._note.name).unlink(missing_ok=True)
            self._note.close()
            self._note = None


class Attempts:
    """Notes below `folder`, one a task.

    A note is locked as long as the process that wrote it lives: a second run of the same task at the same time gets
    places of its own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self, task: str, image: str, command: list[str], inputs: Any, run: str) -> Attempt:
        """The places for a task that `run` is about to start."""
        key = hashlib.sha256(json.dumps([image, command, inputs], sort_keys=True).encode()).hexdigest()[:16]
        note = (self._folder / f"{task}-{key}.txt").open("a+", encoding="utf-8")
        try:
            fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            note.close()
            return Attempt(run)
        note.seek(0)
        earlier = note.read().strip()
        if earlier:
            return Attempt(earlier, resumed=True, _note=note)
        note.write(run)
        note.flush()
        return Attempt(run, _note=note)
