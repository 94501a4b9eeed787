"""The tokeniser's process: one line a caption whatever is in it, and told when it fails. A program named `java` stands
in for the real one, whose words `benchmarks/coco_caption.py` compares with the peer's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llava.errors import UserError
from llava.evaluation import ptb
from llava.evaluation.benchmarks import get_benchmark

# As the jar with -preserveLines: lower-case tokens of each line, marks apart; lines end where Java thinks they do.
JAVA = """#!{python}
import re, sys
lines = re.split("[\\n\\r\\x0b\\x0c\\x85\\u2028\\u2029]", open(sys.argv[-1], newline="").read())
print("\\n".join(" ".join(re.findall(r"[\\w'-]+|[.,!?()]", line.lower())) for line in lines[:{most}]))
sys.exit({code})
"""


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "bin/java"
    place.parent.mkdir()
    monkeypatch.setenv("PATH", str(place.parent))
    monkeypatch.setattr(ptb, "jar", lambda: tmp_path / ptb.JAR)
    write(place)
    return place


def write(place: Path, most: int = -1, code: int = 0) -> None:
    place.write_text(JAVA.format(python=sys.executable, most=most, code=code))
    place.chmod(0o755)


def test_captions_do_not_shift(java: Path) -> None:
    odd = ["A dog.", "two\ncats", "a\u2028b", "", "x\x85y\r\nz", "the end!"]
    assert ptb.words_of(odd) == [["a", "dog"], ["two", "cats"], ["a", "b"], [], ["x", "y", "z"], ["the", "end"]]
    assert "PTB" in ptb.tokenizer_name() and "PTB" in get_benchmark("captions").notes()[0]


def test_a_tokeniser_that_fails_is_told(java: Path) -> None:
    write(java, code=1)
    with pytest.raises(UserError, match="the PTB tokeniser failed"):
        ptb.words_of(["a"])
    write(java, most=1)
    with pytest.raises(UserError, match="gave 1 lines for 3 captions"):
        ptb.words_of(["a", "b", "c"])


def test_without_a_java_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ptb.jar.cache_clear()
    try:
        assert ptb.words_of(["A dog's."]) == [["a", "dog's"]]
        assert "plain word split" in get_benchmark("nocaps").notes()[0]
    finally:
        ptb.jar.cache_clear()
