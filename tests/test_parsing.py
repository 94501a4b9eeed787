"""Hostile shapes of JSON and YAML are answered with a message, in bounded time and memory, never with a traceback."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.config import load_recipe
from llava.errors import SettingsError, UserError
from llava.parsing import BadNumber, Malformed, parse_json, parse_rows, parse_yaml

DEEP = 100_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * DEEP, "nested too deeply"),
        ('{"a":' * DEEP, "nested too deeply"),
        ("[" * 80 + "]" * 80, "nested deeper than 64"),
        ("9" * 5000, "integer of at most 64 bits"),
        (str(2**63), "integer of at most 64 bits"),
        (str(-(2**63) - 1), "integer of at most 64 bits"),
        ("1e999", "below 1.8e308"),
        ("[Infinity]", "finite"),
        ('{"a": NaN}', "finite"),
        (b"\xff\xfe", "not UTF-8"),
        ("{", "not JSON"),
        ("", "not JSON"),
    ],
)
def test_json_that_cannot_be_used(text: str | bytes, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        parse_json(text)


def test_the_largest_numbers_are_read() -> None:
    assert parse_json(f"[{2**63 - 1}, {-(2**63)}, 1.7e308]") == [2**63 - 1, -(2**63), 1.7e308]


def test_a_bad_number_is_its_rows_fault_alone() -> None:
    first, second = parse_rows('[{"id": 1e999, "n": ' + "7" * 5000 + ', "m": Infinity}, {"id": "b"}]')
    assert all(isinstance(first[key], BadNumber) for key in ("id", "n", "m")) and second == {"id": "b"}
    with pytest.raises(Malformed, match="deeply"):
        parse_rows("[" * DEEP)


def bomb(levels: int) -> str:
    """Each level is a list of nine references to the one before (the "billion laughs")."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


def merged(levels: int) -> str:
    lines = ["a0: &a0 {k0: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], k{n}: 1}}" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (bomb(9), "aliases"),
        (bomb(6), "aliases are written out"),
        (merged(9), "aliases"),
        ("[" * 5000, "nested deeper|not YAML"),
        ("a: &a [*a]", "nested deeper|recursive"),
        ("a: .inf", "finite"),
        ("a: " + "9" * 5000, "not YAML|64 bits"),
        ("a: !!python/object/apply:os.system [id]", "not YAML"),
        ("a: 1\na: 2", "twice"),
        ("a: [", "not YAML"),
    ],
)
def test_yaml_that_cannot_be_used(text: str, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        parse_yaml(text)


def test_yaml_keeps_dates_as_text_and_takes_a_few_aliases() -> None:
    text = "day: 2024-02-30\nwhen: 2001-12-14t21:59:43.10-05:00\nbase: &b {x: 1}\nmore: {<<: *b, y: 2}\n"
    assert parse_yaml(text) == {
        "day": "2024-02-30", "when": "2001-12-14t21:59:43.10-05:00", "base": {"x": 1}, "more": {"x": 1, "y": 2},
    }  # fmt: skip


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e300, 1e300) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(PLAIN)
def test_what_json_can_hold_is_read_as_json_reads_it(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_rows(json.dumps(value)) == value


@settings(max_examples=300)
@given(st.text(alphabet='[]{}&*a:!-"\n 019.e<', max_size=60) | st.binary(max_size=60))
def test_nothing_but_malformed_comes_of_noise(data: str | bytes) -> None:
    for read in (parse_json, parse_rows):
        try:
            read(data)
        except Malformed:
            continue
    with contextlib.suppress(Malformed):
        parse_yaml(data if isinstance(data, str) else data.decode("latin-1"))


def test_an_override_of_a_section_changes_only_the_fields_it_names() -> None:
    whole, dotted = (
        load_recipe("tiny", {"finetune": {"max_steps": 3, "lora": {"r": 4}}}),
        load_recipe("tiny", {"finetune.max_steps": 3, "finetune.lora": {"r": 4}}),
    )
    assert whole == dotted and whole.pretrain == load_recipe("tiny").pretrain
    with pytest.raises(SettingsError, match="finetune: found 3"):
        load_recipe("tiny", {"finetune": 3})
    with pytest.raises(SettingsError, match="finetune.max_stepz: unknown field"):
        load_recipe("tiny", {"finetune": {"max_stepz": 3}})
    with pytest.raises(UserError, match="not a section"):
        load_recipe("tiny", {"name.x": 3})
