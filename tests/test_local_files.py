"""Local files: whole or not at all, regular ones only, and names that stay in their folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llava import local_files, storage
from llava.errors import StorageError


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/x", "a//b", "", ".", "..", "a/..", "a\\..\\b", "nul\0", "./x", "x/"]
)
def test_a_name_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not a name for a file below"):
        local_files.below(tmp_path, name)


def test_names_that_stay_are_joined(tmp_path: Path) -> None:
    assert local_files.below(tmp_path, "a/b..c/…/d.jpg") == tmp_path / "a" / "b..c" / "…" / "d.jpg"


def test_a_killed_writer_leaves_nothing_that_a_listing_shows(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom llava import local_files\nfrom pathlib import Path\n"
        "def write(file):\n    file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)\n"
        "local_files.replace(Path(sys.argv[1]) / 'answers.jsonl', write)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    left = list(tmp_path.iterdir())
    assert len(left) == 1 and local_files.is_temporary(left[0])
    assert list(storage.list_files(str(tmp_path))) == []
    storage.upload(tmp_path, str(tmp_path.parent / "copied"))
    assert list((tmp_path.parent / "copied").iterdir()) == []


def test_a_killed_writer_of_a_folder_leaves_nothing_that_a_listing_shows_and_the_next_one_collects_it(
    tmp_path: Path,
) -> None:
    code = (
        "import os, sys\nfrom llava import local_files\nfrom pathlib import Path\n"
        "with local_files.folder_beside(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'weights').write_bytes(b'half'); os.kill(os.getpid(), 9)\n"
    )
    place = tmp_path / "out" / "model [1]"
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", code, str(place)], check=False).returncode == -9
    (left,) = place.parent.iterdir()  # of the second; the first one's was collected
    assert (left / "weights").exists() and list(storage.list_files(str(tmp_path))) == []
    storage.upload(tmp_path, str(tmp_path.parent / "copied"))
    assert not [path for path in (tmp_path.parent / "copied").rglob("*") if path.is_file()]
    with local_files.folder_beside(place) as folder:
        assert [path.name for path in place.parent.iterdir()] == [folder.name]
    assert not list(place.parent.iterdir())


def test_leftovers_are_collected_once_they_are_old(tmp_path: Path) -> None:
    fresh, old = tmp_path / f"{local_files.TEMPORARY}a", tmp_path / f"{local_files.TEMPORARY}b"
    for path in (fresh, old):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    storage.write_bytes(str(tmp_path / "c"), b"c")
    assert sorted(path.name for path in tmp_path.iterdir()) == [fresh.name, "c"]


def test_fifos_devices_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for place, said in ((tmp_path / "fifo", "a FIFO"), (Path("/dev/zero"), "a device"), (tmp_path, "directory|folder")):
        with pytest.raises(StorageError, match=said):
            storage.read_bytes(str(place))
        with pytest.raises(StorageError, match=said):
            storage.read_range(str(place), 0, 1)


def test_a_full_disk_says_what_is_needed_and_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    storage.write_bytes(str(tmp_path / "kept"), b"old")
    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: storage.write_bytes(str(tmp_path / "kept"), b"n" * 2_000_000),
        lambda: storage.upload(tmp_path / "kept", str(tmp_path / "copy")),
        lambda: storage.download(str(tmp_path / "kept"), tmp_path / "copy"),
    ):
        with pytest.raises(StorageError, match=r"the disk is full: .* GB free at .*; free some"):
            write()
    assert (tmp_path / "kept").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_folder_keeps_its_files_and_their_modes_do_not_depend_on_the_source(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"c")
    (tmp_path / "a" / "b" / "c").chmod(0o600)
    storage.upload(tmp_path / "a", str(tmp_path / "z"))
    assert (tmp_path / "z" / "b" / "c").read_bytes() == b"c"
    assert (tmp_path / "z" / "b" / "c").stat().st_mode & 0o777 == 0o666 & ~local_files._umask()


def test_bytes_are_durable_before_their_name_and_the_name_before_anyone_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut needs, in this order: fsync of the file, the rename, fsync of the folder that holds the name."""
    told: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        place = Path(f"/proc/self/fd/{handle}").resolve()
        told.append(("folder" if place.is_dir() else "bytes", place.name if place.is_dir() else ""))
        fsync(handle)

    def renamed(source: str, target: str) -> None:
        told.append(("name", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    whole = [("bytes", ""), ("name", "f"), ("folder", "made")]
    storage.write_bytes(str(tmp_path / "made" / "f"), b"x")
    assert told == whole
    told.clear()
    storage.upload(tmp_path / "made" / "f", str(tmp_path / "copy" / "f"))
    assert told == [*whole[:2], ("folder", "copy")]
    told.clear()
    (tmp_path / "partial").write_bytes(b"y")
    local_files.put_in_place(tmp_path / "partial", tmp_path / "made" / "f", durable=True)
    assert told == whole[:2]
