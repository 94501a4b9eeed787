"""TensorBoard event files, in a folder or below a prefix of an object store."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from llava import storage
from llava.tracking.sink import About, Point


class TensorBoardSink:
    """Event files written by TensorBoard's own writer; a store gets each file whole at every flush.

    A process that resumes writes a file of its own, which begins by telling readers to forget later steps of the files
    before it: TensorBoard's rule for restarts, so that a step that was trained twice is shown once.
    """

    def __init__(self, place: str, about: About, identity: str | None) -> None:
        """Args:
        place: folder or URI; empty: `tensorboard/` below the run's own folder.
        identity: where the run wrote before, if it did.
        """
        from torch.utils.tensorboard import SummaryWriter

        own = storage.join(place, about.name) if place else storage.join(about.folder, "tensorboard")
        # Below a place of the user's the earlier process's folder; below its checkpoints each run has its own.
        self.identity = identity if identity and place else own
        before = identity == self.identity and any(_event_files(self.identity))
        # Flushed before each checkpoint, so up to the one that is resumed from all is there.
        self._kept = about.first_step if before else 0
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        if storage.is_remote(self.identity):
            self._scratch = tempfile.TemporaryDirectory(prefix="llava-tensorboard-")
            self._local = Path(self._scratch.name)
        else:
            self._local = storage.local_path(self.identity)
        purge = self._kept + 1 if before else None
        self._writer = SummaryWriter(log_dir=str(self._local), purge_step=purge)
        if not before:
            lines = "\n".join(f"| {name} | {value} |" for name, value in sorted(about.parameters.items()))
            self._writer.add_text("parameters", f"| field | value |\n|---|---|\n{lines}", 0)

    def has(self, point: Point) -> bool:
        """Whether an earlier process wrote it."""
        return point.step <= self._kept

    def write(self, points: Sequence[Point]) -> None:
        """Into the file; on disk at the next flush."""
        for point in points:
            for name, value in point.values.items():
                self._writer.add_scalar(name, value, point.step, walltime=point.unix_time)

    def flush(self) -> None:
        """To disk, and into the store where the folder is one's."""
        self._writer.flush()
        self._upload()

    def close(self, finished: bool, summary: dict[str, float]) -> None:
        """The last figures as scalars of their own, at step 0 since they belong to none."""
        for name, value in summary.items():
            self._writer.add_scalar(f"summary/{name}", value, 0)
        self._writer.close()
        self._upload()
        if self._scratch is not None:
            with contextlib.suppress(OSError):
                self._scratch.cleanup()

    def _upload(self) -> None:
        if self._scratch is not None:
            for path in sorted(self._local.glob("events.*")):
                storage.upload(path, storage.join(self.identity, path.name))


def _event_files(uri: str) -> list[str]:
    return [item.path for item in storage.list_files(uri) if "events.out.tfevents" in item.path]
