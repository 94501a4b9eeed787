"""JSON lines end at a newline alone: U+2028, U+2029 and U+0085 may stand inside a value."""

from __future__ import annotations

import io
import json

from hypothesis import given
from hypothesis import strategies as st

from llava.json_lines import lines_in, lines_of

ODD = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"


def test_separators_inside_a_value_end_no_line() -> None:
    text = "\n".join(json.dumps({"text": ODD, "n": n}, ensure_ascii=False) for n in range(3)) + "\n"
    found = [(index, json.loads(line)) for index, line in lines_of(text)]
    assert found == [(n, {"text": ODD, "n": n}) for n in range(3)]


def test_blank_lines_are_counted_and_left_out() -> None:
    assert list(lines_of("a\r\n\n  \nb")) == [(0, "a"), (3, "b")]
    assert list(lines_in(io.BytesIO(b"a\r\n\n  \nb"))) == [(0, b"a"), (3, b"b")]


@given(st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))), st.integers(1, 7))
def test_pieces_cut_anywhere_read_like_the_whole(lines: list[str], size: int) -> None:
    data = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert [json.loads(line) for _, line in lines_in(pieces)] == lines
