"""Shards: many images in a few uncompressed tars, with an index of where each lies.

One GET of a range per image instead of one object per image, listing and permissions of a handful of files, and still
random access. `index.json` is `{"version": 1, "shards": [name, ...], "members": {ref: [shard, offset, size]}}`.
The tars are ordinary ones; `tar tf` shows the references.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from llava import storage
from llava.data.image_error import ImageError
from llava.errors import DataError

INDEX_NAME = "index.json"
VERSION = 1
_READ_AHEAD = 64


@dataclass
class ShardIndex:
    """Where each image lies: reference -> (number of the shard, first byte, length)."""

    shards: list[str] = field(default_factory=list)
    members: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def find(self, ref: str) -> tuple[str, int, int] | None:
        """(shard's name, offset, size) of a reference, or None."""
        found = self.members.get(ref)
        return None if found is None else (self.shards[found[0]], found[1], found[2])

    def write(self, uri: str) -> None:
        """Write as JSON."""
        storage.write_json(uri, {"version": VERSION, "shards": self.shards, "members": self.members}, indent=None)

    @classmethod
    def read(cls, uri: str) -> ShardIndex:
        """Read what `write` wrote.

        Raises:
            DataError: it is something else, or of another version.
        """
        data = storage.read_json(uri)
        if not isinstance(data, dict) or data.get("version") != VERSION:
            found = data.get("version") if isinstance(data, dict) else type(data).__name__
            raise DataError(
                f"{uri}: version: found {found!r}; expected {VERSION}: make it again with `llava data pack`"
            )
        try:
            members = {
                ref: (int(shard), int(offset), int(size)) for ref, (shard, offset, size) in data["members"].items()
            }
            index = cls([str(name) for name in data["shards"]], members)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{uri}: not an index of shards ({error}); make it again with `llava data pack`") from error
        if any(not 0 <= shard < len(index.shards) for shard, _, _ in index.members.values()):
            raise DataError(
                f"{uri}: members name shards that the index does not list; make it again with `llava data pack`"
            )
        return index


def pack_images(
    refs: Iterable[str],
    read: Callable[[str], bytes],
    out_uri: str,
    *,
    shard_bytes: int = 512 << 20,
    threads: int = 8,
    left_out: Callable[[ImageError], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> ShardIndex:
    """Copy images into shards below `out_uri` and write their index last, so that a folder with an index is whole.

    Args:
        refs: what rows call their images; repeated ones are stored once.
        read: gives an image's bytes; called from threads.
        shard_bytes: a shard is closed when it has reached this size.
        left_out: called with the error of an image that cannot be read, which is then left out; raises to stop.
            Without it, such an error stops the packing.
        progress: called with the number of images done.

    Raises:
        ImageError, StorageError: from `read` or the store; nothing is half-written under the index's name.
    """
    index = ShardIndex()
    with tempfile.TemporaryDirectory(prefix="llava-pack-") as folder, ThreadPoolExecutor(threads) as pool:
        shard: _OpenShard | None = None
        for ref, future in _read_in_order(pool, dict.fromkeys(refs), read):
            try:
                data = future.result()
            except ImageError as error:
                if left_out is None:
                    raise
                left_out(error)
                continue
            if shard is None:
                index.shards.append(f"images-{len(index.shards):05d}.tar")
                shard = _OpenShard(Path(folder) / index.shards[-1])
            index.members[ref] = (len(index.shards) - 1, shard.add(ref, data), len(data))
            if progress is not None:
                progress(len(index.members))
            if shard.size >= shard_bytes:
                shard.close(storage.join(out_uri, index.shards[-1]))
                shard = None
        if shard is not None:
            shard.close(storage.join(out_uri, index.shards[-1]))
    if not index.members:
        raise DataError("no images to pack; the rows name none")
    index.write(storage.join(out_uri, INDEX_NAME))
    return index


class _OpenShard:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        # Long names get extra headers before the data, so the offset is read back, not computed.
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)

    @property
    def size(self) -> int:
        return self._file.tell()

    def add(self, ref: str, data: bytes) -> int:
        info = tarfile.TarInfo(ref)
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))
        padded = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        return self._file.tell() - padded

    def close(self, uri: str) -> None:
        self._tar.close()
        self._file.close()
        storage.upload(self._path, uri)
        self._path.unlink()


def _read_in_order(
    pool: ThreadPoolExecutor, refs: Iterable[str], read: Callable[[str], bytes]
) -> Iterator[tuple[str, Future[bytes]]]:
    waiting = iter(refs)
    running = deque((ref, pool.submit(read, ref)) for ref in islice(waiting, _READ_AHEAD))
    while running:
        yield running.popleft()
        running.extend((ref, pool.submit(read, ref)) for ref in islice(waiting, 1))
