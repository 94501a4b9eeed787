"""Replies and usage that cannot be what they say."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llava.errors import DataError, StorageError
from llava.expansion.asking.entries import Entry, Hold, decode, encode
from llava.expansion.asking.ledger import Ledger
from llava.expansion.asking.plausible import Plausible
from llava.expansion.recipe.requests import Request
from llava.expansion.sources.corpus import AnnotatedImage
from llava.expansion.teachers.base import Usage
from llava.expansion.teachers.twice import Twice


def test_a_doubled_response_is_told_from_ids_that_say_nothing() -> None:
    twice = Twice()
    assert not twice.seen("a", "one") and not twice.seen("b", "two")
    assert twice.seen("a", "one") and twice.trusted
    assert not twice.seen("b", "three") and not twice.trusted
    constant = Twice()
    assert [constant.seen("x", "same") for _ in range(4)] == [False, True, False, False]


def request(name: str, context: str, kind: str = "detail") -> Request:
    return Request(name, kind, AnnotatedImage("a.jpg", 1, 1, 1, ("x",)), [], context, "m", {}, "", 10)


def test_prompt_tokens_far_from_the_text_are_doubted_once() -> None:
    plausible = Plausible()
    for number in range(40):
        text = "word " * (50 + number)
        assert not plausible.doubt(request(str(number), text), Usage(1000 + 50 + number, 0, 9))
    short = request("s", "word " * 52)
    assert plausible.doubt(short, Usage(1000 + 95, 0, 9))
    assert not plausible.doubt(short, Usage(1000 + 52, 0, 9)), "asked again, it fits"
    odd = request("o", "\u4e00" * 60)
    assert plausible.doubt(odd, Usage(1400, 0, 9)) and not plausible.doubt(odd, Usage(1400, 0, 9))


def test_a_changed_line_of_the_ledger_is_damage(tmp_path: Path) -> None:
    entry = Entry("a", 1, "answered", "", "A dog\u2028runs.", "stop", "m", Usage(10, 0, 5), 0.5, "detail")
    line = encode(entry)
    assert decode(line) == entry and decode(encode(Hold("r", 3, 1.5))) == Hold("r", 3, 1.5)
    for old, new in ((b"0.5", b"0.1"), (b"dog", b"cat"), (b'"input": 10', b'"input": 11')):
        with pytest.raises(ValueError, match="checksum"):
            decode(line.replace(old, new))
    bare = json.loads(line)
    del bare["sum"]
    for field, wrong in (("cost", float("nan")), ("cost", -1), ("attempt", 0), ("status", "fine"), ("cost", "1")):
        with pytest.raises(ValueError, match=f"{field} "):
            decode(json.dumps({**bare, field: wrong}).encode())
    with pytest.raises(ValueError, match="usage.output"):
        decode(json.dumps({**bare, "usage": {"input": 1, "output": -4}}).encode())
    ledger = Ledger(str(tmp_path))
    ledger.append([entry])
    ledger.close()
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.1"))
    with pytest.raises(DataError, match="checksum"):
        Ledger(str(tmp_path))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_among_the_segments_is_an_error_at_once(make: Callable[[Path], None], tmp_path: Path) -> None:
    Ledger(str(tmp_path / "ledger")).close()
    make(tmp_path / "ledger" / "segment-00000000000000000001-1.jsonl")
    with pytest.raises(StorageError, match=r"segment-0+1-1\.jsonl: (a FIFO|Is a directory|a folder).*move it away"):
        Ledger(str(tmp_path / "ledger"))
