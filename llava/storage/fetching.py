"""Large objects onto the local disk: in ranges, many at once, into files that are whole or absent.

A part that fails is tried again on its own until the store's deadline, so that a blip costs one part and not a model.
All parts of a file are of one version of its object: a range is asked for under the entity tag that the size came with.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from llava import local_files
from llava.errors import StorageError
from llava.storage import integrity, s3
from llava.storage.integrity import Verdict

PART_BYTES = 8 << 20  # 16 of them under way: the hash of a file, which goes from its start, is not far behind
THREADS = 16
HASHES_AT_ONCE = 4
FILES_AT_ONCE = 256  # open at once: a process may have 1,024 files
FETCHES = 2  # further ones of a file that came damaged

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Wanted:
    """One object to fetch.

    Attributes:
        size, tag: as listed or asked for; the file is of exactly this object.
    """

    uri: str
    target: Path
    size: int
    tag: str | None = None


def fetch(wanted: Sequence[Wanted], progress: Progress | None = None) -> None:
    """Fetch objects into files, creating folders; each appears under its name when it is whole.

    Args:
        progress: called with (bytes done, bytes in all), from several threads but never at once.

    Raises:
        StorageError: the disk is too small, which is found before anything is fetched; an object is absent, changed
            meanwhile, or the store did not answer before the deadline. Nothing half-fetched is left.
    """
    total = sum(item.size for item in wanted)
    _check_space(wanted)
    done, lock = 0, threading.Lock()

    def told(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            if progress is not None:
                progress(done, total)

    for start in range(0, len(wanted), FILES_AT_ONCE):
        _fetch_together(wanted[start : start + FILES_AT_ONCE], told)


def _fetch_together(wanted: Sequence[Wanted], told: Callable[[int], None]) -> None:
    """Fetch objects whose files are all open at once; `told` of the bytes of each part."""

    def part(item: Wanted, file: int, start: int, length: int) -> None:
        _fetch_part(item, file, start, length)
        told(length)

    with (
        ExitStack() as stack,
        ThreadPoolExecutor(HASHES_AT_ONCE, thread_name_prefix="llava-hash") as hashers,
        ThreadPoolExecutor(THREADS, thread_name_prefix="llava-fetch") as pool,
    ):
        sums: list[tuple[Wanted, int, Future[str]]] = []
        running: list[Future[None]] = []
        files = [(item, stack.enter_context(_partial(item.target))) for item in wanted]
        try:
            for item, (file, _) in files:
                os.truncate(file, item.size)
                parts = [pool.submit(part, item, file, *bounds) for bounds in _parts(item.size)]
                running += parts
                if integrity.is_md5(item.tag):
                    sums.append((item, file, hashers.submit(_md5, item, file, parts)))
            wait(running, return_when=FIRST_EXCEPTION)
            for future in running:
                if future.done():
                    future.result()
            for item, file, found in sums:
                _settle(item, file, found.result())
        except OSError as error:
            need = sum(item.size for item in wanted)
            raise StorageError(
                f"{wanted[0].target.parent}: {local_files.explain(error, wanted[0].target, need)}"
            ) from error
        finally:
            for future in running:
                future.cancel()
            wait(running)
        for item, (_, path) in files:
            local_files.put_in_place(path, item.target)


def _fetch_part(item: Wanted, file: int, start: int, length: int) -> None:
    view = memoryview(s3.read_range(item.uri, start, length, item.tag))
    if len(view) != length:
        raise StorageError(f"{item.uri}: ends before byte {start + length}; {item.size} bytes were listed")
    while view:  # a write may be cut short by a signal or a full disk
        written = os.pwrite(file, view, start + length - len(view))
        view = view[written:]


def _md5(item: Wanted, file: int, parts: Sequence[Future[None]]) -> str:
    """The MD5 of a file while it is fetched: each part as soon as it and those before it are there."""
    digest = hashlib.md5(usedforsecurity=False)
    for (start, length), part in zip(_parts(item.size), parts, strict=True):
        part.result()
        digest.update(os.pread(file, length, start))
    return digest.hexdigest()


def _settle(item: Wanted, file: int, found: str) -> None:
    """Compare a file's MD5 with its entity tag: ranges hide the sum of the whole from whoever reads them.

    Where they differ it is fetched again. Bytes that differ between two fetches were damaged on their way; bytes that
    do not show, where no tag of the bucket has been right yet, that its tags are something else.
    """
    for _ in range(FETCHES):
        verdict = s3.judge_whole(item.uri, item.tag, found)
        if verdict in (Verdict.SAME, Verdict.SILENT):
            return
        for bounds in _parts(item.size):
            _fetch_part(item, file, *bounds)
        before, found = found, _md5_of_file(file, item.size)
        if verdict is Verdict.SUSPECT and found == before:
            s3.believe_no_tags(item.uri)
            return
    if s3.judge_whole(item.uri, item.tag, found) not in (Verdict.SAME, Verdict.SILENT):
        raise StorageError(f"{item.uri}: damaged: MD5 {found[:12]}..., its entity tag is {item.tag}")


def _md5_of_file(file: int, size: int) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for start, length in _parts(size):
        digest.update(os.pread(file, length, start))
    return digest.hexdigest()


def _parts(size: int) -> Iterable[tuple[int, int]]:
    return ((start, min(PART_BYTES, size - start)) for start in range(0, size, PART_BYTES))


@contextmanager
def _partial(target: Path) -> Iterator[tuple[int, Path]]:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f"{local_files.TEMPORARY}{target.name[:100]}.")
    try:
        yield handle, Path(name)
    finally:
        os.close(handle)
        Path(name).unlink(missing_ok=True)


def _check_space(wanted: Sequence[Wanted]) -> None:
    if not wanted:
        return
    place = wanted[0].target
    need, free = sum(item.size for item in wanted), local_files.free_bytes(place)
    if need > free:
        raise StorageError(
            f"{place.parent}: {need / 1e9:,.3f} GB are to be fetched ({wanted[0].uri}, ...), and "
            f"{free / 1e9:,.3f} GB are free; give the pod more ephemeral storage, or set TMPDIR to a larger disk"
        )
