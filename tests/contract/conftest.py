"""Fixtures shared by this folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch.distributed as dist
from PIL import Image

from tests.conftest import TinyWorld


@pytest.fixture(scope="session")
def _group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Once a session: DeepSpeed keeps the first group it sees."""
    meeting = tmp_path_factory.mktemp("group") / "meeting"
    dist.init_process_group("gloo", init_method=meeting.as_uri(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def one_rank(_group: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as the only rank of a run: an `Engine` can be made in it."""
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def odd_world(tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """The tiny world with its pictures in sizes that have to be padded and resized."""
    root = tmp_path_factory.mktemp("odd")
    for number, path in enumerate(sorted((tiny_world.root / "train2017").glob("*.jpg"))):
        target = root / "train2017" / path.name
        target.parent.mkdir(exist_ok=True)
        Image.open(path).resize((40 + 7 * (number % 9), 100 - 9 * (number % 7))).save(target, quality=95)
    return replace(tiny_world, root=root)
