"""The reference page of recipes is what the schema says, field for field."""

from __future__ import annotations

from llava.config import TrainRecipe
from tools.recipe_reference import PAGE, page


def test_the_page_is_the_schemas() -> None:
    assert PAGE.read_text() == page(), "write it again: python -m tools.recipe_reference"


def test_every_field_of_a_stage_has_a_row_with_all_five_cells() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert all(len(line.replace("\\|", "").split("|")) == 7 for line in rows)
    named = {line.split("`")[1] for line in rows}
    assert named >= set(TrainRecipe.model_fields)
    filled = [line for line in rows if line.rstrip("| ").rsplit("|", 1)[-1].strip()]
    assert filled == rows


def test_a_row_by_hand() -> None:
    """As `llava/config.py` has them: a bounded number with a unit, a choice, a field without default."""
    text = PAGE.read_text()
    assert (
        "| `global_batch_size` | whole number, from 1, rows | `128` | Rows per optimiser step over all ranks |" in text
    )
    assert "| `precision` | `fp32`, `bf16` | `bf16` |" in text
    assert "| `learning_rate` | number, above 0 | required |" in text
    assert "| `warmup_ratio` | number, from 0 below 1, share of steps | `0.03` |" in text
