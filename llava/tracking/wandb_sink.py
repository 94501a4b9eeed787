"""A run on Weights & Biases."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from llava import storage
from llava.tracking.sink import OF_A_STEP, About, Point


class WandbSink:
    """One run a stage. WANDB_API_KEY, WANDB_BASE_URL and WANDB_MODE (offline: `wandb sync` later) are W&B's own.

    What is written locally lies in WANDB_DIR; without it below the run's folder, or in scratch where that is remote.
    """

    def __init__(self, place: str, about: About, identity: str | None) -> None:
        """Args:
        place: project, or entity/project; empty: WANDB_PROJECT, else `llava`.
        identity: the id of the run to continue, if there is one.
        """
        import wandb

        entity, _, project = place.rpartition("/")
        self.identity = identity or uuid.uuid4().hex[:16]
        folder = os.environ.get("WANDB_DIR") or (
            tempfile.mkdtemp(prefix="llava-wandb-")
            if storage.is_remote(about.folder)
            else str(storage.local_path(about.folder))
        )
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=project or os.environ.get("WANDB_PROJECT") or "llava",
            entity=entity or None,
            id=self.identity,
            name=about.name,
            resume="allow",
            config=dict(about.parameters),
            dir=folder,
            settings=wandb.Settings(console="off", silent=True, init_timeout=60),
        )
        # Offline nothing says what an earlier process wrote: `wandb sync` merges by step.
        self._last = max(0, self._run.starting_step - 1) if self._run.resumed else 0

    def has(self, point: Point) -> bool:
        """Whether the server has it; W&B takes no step below its last."""
        return point.step < self._last or (point.step == self._last and OF_A_STEP in point.values)

    def write(self, points: Sequence[Point]) -> None:
        """Handed to W&B's own process."""
        for point in points:
            self._run.log(dict(point.values), step=point.step)

    def flush(self) -> None:
        """W&B's own process keeps what it was handed when this one is killed."""

    def close(self, finished: bool, summary: dict[str, float]) -> None:
        """The end, with the last figures in the run's summary."""
        self._run.summary.update(summary)
        self._run.finish(exit_code=0 if finished else 1)
