"""The ledger, and files, on a file system that is really full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from llava import storage
from llava.errors import StorageError
from llava.expansion.asking.entries import Entry
from llava.expansion.asking.ledger import Ledger
from llava.expansion.teachers.base import Usage
from tests.small_disk import grow, may_mount, small_disk

pytestmark = pytest.mark.skipif(not may_mount(), reason="mounting a small file system needs root")
SIZE, ROOM = 128 << 10, 8 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", SIZE) as folder:
        yield folder


def entry(number: int) -> Entry:
    return Entry(f"r{number}", 1, "answered", "", "x" * 700, "stop", "m", Usage(10, 0, 5), 0.25, "detail")


def fill(folder: Path) -> None:
    """Take the last byte of a disk."""
    with suppress(OSError), (folder / "filling").open("wb", buffering=0) as file:
        while True:
            file.write(b"f" * 4096)


def written(uri: str) -> list[str]:
    """Append until the disk is full; ids of what was acknowledged."""
    done: list[str] = []
    ledger = Ledger(uri)
    try:
        with suppress(StorageError):
            for number in range(10_000):
                ledger.append([entry(number)])
                done.append(f"r{number}")
        with pytest.raises(StorageError, match=r"cannot be written: .*No space left on device; make room"):
            ledger.append([entry(len(done))])
        # Without room the next one fails in the same words, and spoils nothing either.
        with pytest.raises(StorageError, match="No space left"):
            ledger.append([entry(len(done))])
    finally:
        ledger.close()
    return done


def test_what_was_acknowledged_before_the_disk_was_full_is_all_there_and_more_can_follow(disk: Path) -> None:
    uri = str(disk / "ledger")
    done = written(uri)
    assert 20 < len(done) < 400
    again = Ledger(uri)  # before there is room: it can be opened
    assert list(again.entries()) and all(name in again for name in done) and again.notes == []
    assert again.cost == 0.25 * len(again) and len(again) == len(done)
    with pytest.raises(StorageError, match="No space left"):
        again.append([entry(5000)])
    grow(disk, ROOM)
    again.append([entry(5000)])
    again.close()
    last = Ledger(uri, reading=True)
    assert [one.id for one in last.entries()] == [*done, "r5000"]
    last.close()


def test_a_line_that_was_torn_by_a_full_disk_and_a_kill_spoils_nothing(disk: Path) -> None:
    uri = str(disk / "ledger")
    done = written(uri)
    # A kill right after ENOSPC leaves the half line that the cut would have taken away.
    segment = sorted((disk / "ledger").glob("segment-*"))[0]
    grow(disk, ROOM)
    with segment.open("ab") as file:
        file.write(b'{"id": "half')
    ledger = Ledger(uri)
    assert len(ledger) == len(done) and "cut off" in ledger.notes[0]
    ledger.append([entry(6000)])
    ledger.close()
    last = Ledger(uri, reading=True)
    assert {one.id for one in last.entries()} == {*done, "r6000"}
    last.close()


def test_a_disk_without_room_for_one_more_file_is_a_message(tmp_path: Path) -> None:
    """As where a quota counts files: neither the lock nor a segment can be made."""
    with small_disk(tmp_path / "disk", SIZE, files=3) as disk:  # the root, the ledger's folder and its lock
        ledger = Ledger(str(disk / "ledger"))
        with pytest.raises(StorageError, match="cannot be written"):
            ledger.append([entry(1)])
        ledger.close()
        with pytest.raises(StorageError, match=r"cannot be opened: the disk is full"):
            Ledger(str(disk / "other"))
        grow(disk, ROOM)
        ledger = Ledger(str(disk / "ledger"))
        ledger.append([entry(1)])
        assert len(ledger) == 1
        ledger.close()


def test_files_written_to_a_full_disk_stand_there_whole_or_not_at_all(disk: Path, tmp_path: Path) -> None:
    storage.write_bytes(str(disk / "kept"), b"old")
    fill(disk)
    (tmp_path / "large").write_bytes(os.urandom(SIZE))
    for write in (
        lambda: storage.write_bytes(str(disk / "kept"), b"n" * SIZE),
        lambda: storage.upload(tmp_path / "large", str(disk / "copy")),
        lambda: storage.download(str(tmp_path / "large"), disk / "copy"),
    ):
        with pytest.raises(StorageError, match=r"the disk is full|free"):
            write()
    assert (disk / "kept").read_bytes() == b"old"
    assert sorted(path.name for path in disk.iterdir()) == ["filling", "kept"]
