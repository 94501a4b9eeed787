"""Images by reference: a path below a root, a URI, or a member of an uncompressed tar, behind one reader.

References:
    `coco/train2017/000000033471.jpg`: below `images_uri`. Where `llava data pack` made shards, `images_uri` is their
        folder (it holds `index.json`) and the same references are read from the shards.
    `s3://bucket/key.jpg`, `file:///path.jpg`, `/path.jpg`: as they are, below a root that `images_uri` names.
    `shards/00003.tar#1024+15000`: 15,000 bytes from byte 1,024 of a tar.
Remote bytes pass through a disk cache of bounded size, shared by the threads of a process.
"""

from __future__ import annotations

import base64
import errno
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from llava import storage
from llava.data.decoding import END_BYTES, START_BYTES, decode, header, header_of_ends
from llava.data.disk_cache import DiskCache
from llava.data.image_error import ImageError
from llava.data.references import Roots
from llava.data.shards import INDEX_NAME, ShardIndex
from llava.errors import SettingsError, StorageError

__all__ = ["ImageError", "ImageSource", "decode"]

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
_MEMBER = re.compile(r"^(?P<tar>.+\.tar)#(?P<offset>\d{1,18})\+(?P<size>\d{1,18})$")


@dataclass(frozen=True)
class _Place:
    """Where bytes stand; `size` None: the whole file."""

    uri: str
    offset: int = 0
    size: int | None = None


class ImageSource:
    """Reads images. Safe to call from threads; a copy sent to another process starts with an empty cache.

    Args:
        images_uri: root of relative references, and after commas further places that may be read (see `references`).
        anywhere: read whatever a reference names: for references that a person gave, never for those of rows.
        cache_bytes: size of the disk cache for remote images; 0 for none; None: LLAVA_IMAGE_CACHE_GB (10^9 bytes),
            default 8. Never more than half of what the disk has free.
        places: name -> tar, for the references that the rows' reader itself made (`RecordFile.places`).
        cache_folder: where the cache stands; default a temporary folder that goes with the process.

    Raises:
        SettingsError: LLAVA_IMAGE_CACHE_GB is not a number.
    """

    def __init__(
        self,
        images_uri: str = "",
        *,
        anywhere: bool = False,
        cache_bytes: int | None = None,
        cache_folder: str | None = None,
        places: Mapping[str, str] | None = None,
    ) -> None:
        self.images_uri = images_uri
        self.anywhere = anywhere
        self.places = dict(places or {})
        self._roots = Roots(images_uri, anywhere=anywhere, places=self.places)
        self._cache_bytes = _cache_bytes_from_environment() if cache_bytes is None else cache_bytes
        self._cache_folder = cache_folder
        self._lock = threading.Lock()
        self._cache: DiskCache | None = None
        self._index: ShardIndex | None = None
        self._index_read = False

    def read(self, ref: str) -> bytes:
        """The image file's bytes.

        Raises:
            ImageError: no such image, or a reference that leaves the root.
            StorageError: the store refuses or does not answer: not the image's fault.
        """
        place = self._place(ref)
        if not storage.is_remote(place.uri) or not self._cache_bytes:
            return self._fetch(ref, place)
        key = f"{place.uri}#{place.offset}+{place.size}"
        cache = self._open_cache()
        data = cache.get(key)
        if data is None:
            data = self._fetch(ref, place)
            cache.put(key, data)
        return data

    def load(self, ref: str) -> Image.Image:
        """The decoded image, RGB, transparency on white as the hub's processors have it; an animation's first frame.

        Raises:
            ImageError: as `read`, or the bytes are not an image that can be decoded to its end.
        """
        return decode(self.read(ref), ref)

    def header(self, ref: str) -> tuple[int, int]:
        """(width, height) in pixels, reading as little as tells that the file is an image and seems whole.

        A JPEG must begin and end as one; where the end is not what it should be, and for other formats of some size,
        the image is decoded. A fault in the middle of a JPEG is only found by `load`. Of a JPEG or PNG in a store the
        first 32 KiB and the last bytes are fetched, and nothing is put into the cache.

        Raises:
            ImageError: as `load`.
        """
        place = self._place(ref)
        if storage.is_remote(place.uri):
            found = self._reading(ref, place, lambda: _size_by_ends(ref, place))
            if found is not None:
                return found
        return header(self.read(ref), ref)

    def read_image(self, ref: str) -> bytes:
        """The file's bytes, looked at as `header` does: what is no image is never handed on.

        Raises:
            ImageError: as `header`.
        """
        data = self.read(ref)
        header(data, ref)
        return data

    def _place(self, ref: str) -> _Place:
        if ref.startswith("data:"):
            return _Place(ref)
        uri = self._roots.resolve(ref)
        index = self._shards() if self._roots.first and "://" not in ref and not ref.startswith("/") else None
        if index is not None:
            found = index.find(ref)
            if found is None:
                detail = f"not in the shards' index of {self._roots.first}"
                raise ImageError(ref, "image-missing", detail, "one of the packed images")
            shard, offset, size = found
            return _Place(storage.join(self._roots.first, shard), offset, size)
        member = _MEMBER.match(uri)
        if member:
            return _Place(member["tar"], int(member["offset"]), int(member["size"]))
        return _Place(uri)

    def _fetch(self, ref: str, place: _Place) -> bytes:
        if place.uri.startswith("data:"):
            return _of_data_uri(ref)
        self._roots.check_links(ref, place.uri)

        def whole() -> bytes:
            if place.size is None:
                return storage.read_bytes(place.uri)
            return storage.read_range(place.uri, place.offset, place.size)

        return self._reading(ref, place, whole)

    def _reading(self, ref: str, place: _Place, read: Callable[[], T]) -> T:
        try:
            return read()
        except StorageError as error:
            # A store that is down would make every row "missing": only a certain absence is the row's fault.
            if _is_absent(error, place.uri):
                raise ImageError(ref, "image-missing", f"no image at {place.uri}", "an existing file") from error
            if _is_the_references(error, place.uri):
                raise ImageError(ref, "image-path", str(error), "the path or URI of an image file") from error
            raise

    def _shards(self) -> ShardIndex | None:
        with self._lock:
            if not self._index_read:
                uri = storage.join(self._roots.first, INDEX_NAME)
                self._index = ShardIndex.read(uri) if storage.size(uri) is not None else None
                self._index_read = True
            return self._index

    def _open_cache(self) -> DiskCache:
        with self._lock:
            if self._cache is None:
                self._cache = DiskCache(self._cache_bytes, self._cache_folder)
            return self._cache

    def __getstate__(self) -> dict[str, Any]:
        return {
            "images_uri": self.images_uri,
            "anywhere": self.anywhere,
            "places": self.places,
            "cache_bytes": self._cache_bytes,
            "cache_folder": self._cache_folder,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _of_data_uri(ref: str) -> bytes:
    """The bytes that a reference holds itself: `data:image/png;base64,...`."""
    head, comma, body = ref.partition(",")
    try:
        if comma and head.endswith(";base64"):
            return base64.b64decode(body, validate=True)
    except ValueError:
        pass
    raise ImageError(f"{ref[:40]}...", "image-path", "is no image in base64", "data:image/png;base64,...")


def _size_by_ends(ref: str, place: _Place) -> tuple[int, int] | None:
    """Width and height from the two ends of a file in a store; None where it has to be read whole."""
    if place.size is None:
        start, size = storage.read_start(place.uri, START_BYTES)
    else:
        size = place.size
        start = storage.read_range(place.uri, place.offset, min(size, START_BYTES))
    if len(start) >= size:
        return header(start, ref)
    if start[:2] != b"\xff\xd8" and start[:4] != b"\x89PNG":
        return None
    end = storage.read_range(place.uri, place.offset + size - END_BYTES, END_BYTES)
    return header_of_ends(start, end, ref)


def _cache_bytes_from_environment() -> int:
    value = os.environ.get("LLAVA_IMAGE_CACHE_GB", "8")
    try:
        return max(0, int(float(value) * 1e9))
    except (ValueError, OverflowError) as error:
        raise SettingsError(
            f"LLAVA_IMAGE_CACHE_GB: found {value!r}; expected a number of gigabytes, 0 for none"
        ) from error


def _is_absent(error: StorageError, uri: str) -> bool:
    if not storage.is_remote(uri):
        return isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError, IsADirectoryError))
    return isinstance(error, storage.Absent)


_A_REFERENCES_FAULT = {
    errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENXIO,
}  # fmt: skip


def _is_the_references(error: StorageError, uri: str) -> bool:
    """True where the reference itself cannot work, whatever the state of disk or store: that is its row's fault."""
    cause = error.__cause__
    if isinstance(cause, OSError) and not storage.is_remote(uri):
        return cause.errno in _A_REFERENCES_FAULT
    # A name that no file or object can have, an unknown scheme, a bucket or key that the store calls malformed.
    unknown_scheme = "://" in uri and not storage.is_remote(uri)
    return unknown_scheme or isinstance(cause, ValueError) or _refused_name(cause)


def _refused_name(cause: BaseException | None) -> bool:
    if type(cause).__name__ == "ParamValidationError":
        return True
    reply = getattr(cause, "response", None)
    code = reply.get("Error", {}).get("Code", "") if isinstance(reply, dict) else ""
    return code in ("KeyTooLongError", "InvalidBucketName", "InvalidURI", "InvalidArgument", "400")
