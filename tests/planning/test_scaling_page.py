"""docs/scaling.md shows what the planner says today."""

from __future__ import annotations

import pytest

from llava.config import load_recipe
from tools import scaling_table


@pytest.mark.slow
def test_the_page_s_tables_are_what_is_planned() -> None:
    assert scaling_table.PAGE.read_text() == scaling_table.page(), "run `python -m tools.scaling_table --write`"


@pytest.mark.slow
def test_every_cell_fits_or_says_no() -> None:
    """No remedy of the table is one in name only, and full fine-tuning stays full where it can."""
    for _, name, stage in scaling_table.CASES:
        recipe = load_recipe(name)
        for gpu in scaling_table.GPUS.values():
            for count in scaling_table.COUNTS:
                done, change = scaling_table.remedied(recipe, stage, gpu, count)
                assert done.fits or change.startswith("no"), (name, gpu, count)
    _, change = scaling_table.remedied(load_recipe("llava-v1.5-7b"), "finetune", "a100-40g", 8)
    assert change and "LoRA" not in change
