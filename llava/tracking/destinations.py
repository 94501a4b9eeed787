"""Where curves go, as people write it: `tensorboard, mlflow=http://mlflow.example:5000`."""

from __future__ import annotations

from dataclasses import dataclass

from llava import extras
from llava.errors import SettingsError
from llava.suggestions import meant

LIBRARIES = {
    "tensorboard": ("tensorboard", "torch"),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
}


@dataclass(frozen=True)
class Destination:
    """One tracker.

    Attributes:
        kind: tensorboard, mlflow or wandb.
        place: tensorboard: folder or URI of the event files; mlflow: tracking URI; wandb: project, or entity/project.
            Empty: `tensorboard/` below the checkpoints, or what the library's own environment variables say.
    """

    kind: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.kind}={self.place}" if self.place else self.kind


def read_destinations(text: str) -> tuple[Destination, ...]:
    """What a setting's text names, separated by commas; nothing for an empty one.

    Raises:
        SettingsError: an unknown tracker, one named twice, or one whose library is not installed.
    """
    found: list[Destination] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        kind, _, place = (piece.strip() for piece in part.partition("="))
        if kind not in LIBRARIES:
            raise SettingsError(f"tracking: found {kind!r}; {meant(kind, LIBRARIES)}, each with or without =PLACE")
        if any(other.kind == kind for other in found):
            raise SettingsError(f"tracking: {kind} stands twice in {text!r}; expected each once")
        found.append(Destination(kind, place))
    return tuple(found)


def require_libraries(destinations: tuple[Destination, ...]) -> None:
    """Ask for what they import, before a run begins.

    Raises:
        SettingsError: a library is missing, with the extra that brings it.
    """
    for destination in destinations:
        extras.require(f"tracking: {destination.kind}", "tracking", LIBRARIES[destination.kind])
