"""What a setting says, and what is said of a wrong one."""

from __future__ import annotations

import pytest

from llava import extras
from llava.errors import SettingsError
from llava.tracking.destinations import Destination, read_destinations, require_libraries


def test_names_and_places() -> None:
    assert read_destinations("") == ()
    assert read_destinations(" tensorboard , mlflow=http://mlflow:5000,wandb=team/llava") == (
        Destination("tensorboard"),
        Destination("mlflow", "http://mlflow:5000"),
        Destination("wandb", "team/llava"),
    )
    assert read_destinations("mlflow=sqlite:///a=b.db") == (Destination("mlflow", "sqlite:///a=b.db"),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tensorbord", "found 'tensorbord'; did you mean tensorboard"),
        ("comet", "found 'comet'; known: mlflow, tensorboard, wandb"),
        ("mlflow, mlflow=http://b", "mlflow stands twice"),
    ],
)
def test_what_cannot_be_meant(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read_destinations(text)


def test_a_missing_library_is_said_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "_installed", lambda module: module != "mlflow")
    require_libraries(read_destinations("tensorboard"))
    with pytest.raises(SettingsError, match=r"tracking: mlflow needs mlflow.*llava-pipelines\[tracking\]"):
        require_libraries(read_destinations("tensorboard,mlflow"))
