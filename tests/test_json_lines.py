"""JSON lines end at a newline alone: U+2028, U+2029 and U+0085 may stand inside a value."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path

import pytest
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


# Where text is cut at every kind of line end on purpose, or cannot hold another kind: what, and why it is no JSON line.
_NO_JSON_LINES = {
    "llava/accelerators.py": "what a program printed",
    "llava/cli/chat.py": "what a person types",
    "llava/data/row_sources.py": "the first line of an error",
    "llava/data/tables.py": "the first line of an error",
    "llava/executor.py": "the first line of a docstring",
    "llava/expansion/recipe/grammar.py": "prose of a teacher, in which any line end may hide a label",
    "llava/expansion/showing/preview.py": "prose, shown",
    "llava/expansion/teachers/scene.py": "captions that the recipe put on lines of their own",
    "llava/multinode/api.py": "a pod's log",
    "llava/pipelines/parameters.py": "the lines of an error",
    "llava/tracking/tracker.py": "the first line of an error",
    "llava/training/launch.py": "what a program printed",
    "tools/audit.py": "a lock file",
    "tools/images/content.py": "what a program printed",
    "tools/images/dockerfile.py": "a Dockerfile",
}
_CUTTERS = {"splitlines", "iter_lines", "aiter_lines", "readline", "readlines"}


def _text_handles(tree: ast.AST) -> set[str]:
    """Names of files that a `with` opens for text: iterating one cuts at \\r too, and hides how it is encoded."""
    found = set()
    for node in ast.walk(tree):
        for item in node.items if isinstance(node, (ast.With, ast.AsyncWith)) else ():
            call, name = item.context_expr, item.optional_vars
            if isinstance(call, ast.Call) and isinstance(name, ast.Name) and _opens_text(call):
                found.add(name.id)
    return found


def _opens_text(call: ast.Call) -> bool:
    named = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if (
        named not in ("open", "fdopen", "TextIOWrapper")
        or getattr(getattr(call.func, "value", None), "id", "") == "tarfile"
    ):
        return False
    place = 0 if isinstance(call.func, ast.Attribute) and named == "open" else 1
    given = [word.value for word in call.keywords if word.arg == "mode"] + list(call.args[place : place + 1])
    modes = [each.value for each in given if isinstance(each, ast.Constant)]
    return not any("b" in str(mode) or "w" in str(mode) or "a" in str(mode) for mode in modes)


def cuts(source: str) -> list[int]:
    """Lines on which text is cut into lines by anything but `llava.json_lines` (or a plain split at \\n)."""
    tree = ast.parse(source)
    handles = _text_handles(tree)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CUTTERS:
            found.append(node.lineno)
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
            over = node.iter
            if (
                isinstance(over, ast.Call)
                and over.args
                and getattr(over.func, "id", "") in ("enumerate", "list", "map")
            ):
                over = over.args[-1]
            if (isinstance(over, ast.Name) and over.id in handles) or (
                isinstance(over, ast.Call) and _opens_text(over)
            ):
                found.append(over.lineno)
    return sorted(found)


def test_no_reader_cuts_json_lines_by_itself() -> None:
    """Every place that cuts text into lines by other means than this module is known to read no JSON lines."""
    root = Path(__file__).parents[1]
    files = [
        root / "pipeline.py",
        *(path for name in ("llava", "components", "demo", "tools") for path in (root / name).rglob("*.py")),
    ]
    cutting = {str(path.relative_to(root)) for path in files if cuts(path.read_text(encoding="utf-8"))}
    binary = {"llava/expansion/asking/ledger.py"}  # `readline` of a binary file ends at \n alone
    assert cutting == _NO_JSON_LINES.keys() | binary
    rows = {"llava/data/row_sources.py", "llava/data/tables.py"}  # these read rows, too: once each, of an error's text
    assert [len(cuts((root / name).read_text(encoding="utf-8"))) for name in rows] == [1, 1]
    for name in _NO_JSON_LINES.keys() - rows:
        assert "jsonl" not in (root / name).read_text(encoding="utf-8"), name


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("rows = [json.loads(line) for line in text.splitlines()]", True),
        ("with open(path) as file:\n    for line in file:\n        json.loads(line)", True),
        (
            "with path.open(encoding='utf-8') as file:\n    for n, line in enumerate(file):\n        json.loads(line)",
            True,
        ),
        ("rows = [json.loads(line) for line in open(path)]", True),
        ("for line in reply.iter_lines():\n    json.loads(line)", True),
        ("with path.open('rb') as file:\n    for line in file:\n        json.loads(line)", False),
        ("with open(path, mode='rb') as file:\n    for line in file:\n        json.loads(line)", False),
        ("rows = [json.loads(line) for _, line in lines_of(text)]", False),
    ],
)
def test_a_reader_of_its_own_would_be_seen(source: str, found: bool) -> None:
    assert bool(cuts(source)) is found
