"""A small demo world in COCO's layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from demo.world import write_world

settings.register_profile("expansion", deadline=None)  # a busy machine is no failure
settings.load_profile("expansion")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    write_world(root, train=60, held_out=4, seed=5)
    return root
