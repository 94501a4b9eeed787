"""Which image each stage runs in, from `images.lock.json`."""

import json
from pathlib import Path

LOCK = Path(__file__).parent.parent / "images.lock.json"


def image_of(stage: str, lock: Path = LOCK) -> str:
    """The stage's image reference: `name@sha256:...` once built and pinned, a development tag before.

    Raises:
        FileNotFoundError: there is no lock file.
        KeyError: the lock names no image for the stage.
    """
    return str(json.loads(lock.read_text())["stages"][stage])
