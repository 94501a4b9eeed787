"""Values from a YAML file or a command line in the types a package declares."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.config import load_recipe
from llava.multinode.train_on_nodes import read_node_settings
from llava.pipelines.options import read_parameters
from llava.pipelines.values import as_parameter
from llava.validation import as_text


def test_a_file_may_say_mappings_and_lists_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "finetune_overrides:\n  finetune.epochs: 2\n  finetune.lora: {r: 64}\n"
        "train_job: {accelerators: 8, node_selector: {pool: a}}\n"
        "accelerator_node_selector: {zone: b}\naccelerator_tolerations: [{operator: Exists}]\ntrain_accelerators: 8\n"
    )
    kinds = {"accelerator_node_selector": "STRUCT", "accelerator_tolerations": "LIST"}
    read = {name: as_parameter(v, kinds.get(name, "STRING")) for name, v in read_parameters(str(file), None).items()}
    assert read["train_accelerators"] == "8" and read["accelerator_tolerations"] == [{"operator": "Exists"}]
    assert read["accelerator_node_selector"] == {"zone": "b"}
    # What the stages make of the text.
    assert read_node_settings(read["train_job"]).node_selector == {"pool": "a"}
    assert load_recipe("tiny", read["finetune_overrides"]).finetune.epochs == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [("a: b", "a: b"), (8, "8"), (0.5, "0.5"), (True, "true"), ([], "[]"), ({"ü": [1]}, '{"ü": [1]}'), ("", "")],
)
def test_text(value: Any, text: str) -> None:
    assert as_text(value) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.mark.slow
@given(st.dictionaries(st.text(), JSON) | st.lists(JSON))
def test_structure_comes_back_from_its_text(value: Any) -> None:
    assert json.loads(as_text(value)) == value


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"a": math.nan}, "STRING"),
        (2.5, "NUMBER_INTEGER"),
        (True, "NUMBER_INTEGER"),
        ("x", "NUMBER_DOUBLE"),
        ([1], "NUMBER_DOUBLE"),
        (math.nan, "NUMBER_DOUBLE"),
        (8, "LIST"),
        ("perhaps", "BOOLEAN"),
        ([], "STRUCT"),
    ],
)
def test_what_is_no_such_value(value: Any, kind: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        as_parameter(value, kind)
