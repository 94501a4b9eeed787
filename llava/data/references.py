"""Where a row's image reference may lead: below the images' root, or below a further root that the user has named.

Rows come from files that others wrote. A reference such as `file:///etc/passwd`, `../../secret`, an address in somebody
else's bucket or a symbolic link out of the folder must not make a stage read, pack or show what it can reach. So
`images_uri` is the allow-list: its first part is the root of relative references, every further part (after a comma) a
place that absolute paths and URIs may lead to as well.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path

from llava import storage
from llava.data.image_error import ImageError
from llava.errors import StorageError


class Roots:
    """The places that references may lead to.

    Args:
        images_uri: comma-separated; the first is the root of relative references, "" is the working directory.
        anywhere: every path and URI is allowed, because a person gave it and not a row.
        places: name -> tar whose members are allowed (`<name>#<offset>+<size>`): those that hold the rows' own images.
    """

    def __init__(self, images_uri: str, *, anywhere: bool = False, places: Mapping[str, str] | None = None) -> None:
        self.allowed = [part.strip() for part in images_uri.split(",") if part.strip()]
        self.first = self.allowed[0] if self.allowed else ""
        self._anywhere = anywhere
        self._real = [os.path.realpath(storage.local_path(root)) for root in self.allowed if _is_local(root)]
        if not self.allowed:
            self._real.append(os.path.realpath("."))
        self._members = dict(places or {})
        tars = self._members.values()
        self._real += [os.path.realpath(storage.local_path(tar)) for tar in tars if _is_local(tar)]
        self._prefixes = [f"{_plain(root).rstrip('/')}/" for root in self.allowed]

    def resolve(self, ref: str) -> str:
        """The path or URI behind a reference.

        Raises:
            ImageError: `image-path`: it leads out of every root, or no file can have this name.
        """
        if self._members and (tar := self._members.get(ref.rpartition("#")[0])):
            return f"{tar}#{ref.rpartition('#')[2]}"
        relative = "://" not in ref and not ref.startswith("/")
        if self._anywhere:
            return storage.join(self.first, ref) if relative and self.first else ref
        if "\0" in ref or ".." in ref.split("/"):
            raise self._outside(ref, "leaves the images' root")
        if relative:
            return storage.join(self.first, ref) if self.first else ref
        if not any(_plain(ref).startswith(prefix) for prefix in self._prefixes):
            raise self._outside(ref, "is not below the images' root")
        return ref

    def check_links(self, ref: str, uri: str) -> None:
        """Refuse a local path whose symbolic links lead out of every root.

        Raises:
            ImageError: `image-path`.
        """
        if self._anywhere or not _is_local(uri):
            return
        try:
            real = os.path.realpath(storage.local_path(uri))
        except (OSError, ValueError, StorageError):  # a name that no file can have: the read will say so
            return
        if not any(real == root or real.startswith(f"{root.rstrip('/')}/") for root in self._real):
            raise self._outside(ref, "is a symbolic link that leaves the images' root")

    def _outside(self, ref: str, what: str) -> ImageError:
        roots = ", ".join(self.allowed) or "the working directory"
        expected = f"an image below {roots}; a further place is allowed by naming it in images_uri, after a comma"
        return ImageError(ref, "image-path", what, expected)


@functools.lru_cache(maxsize=64)
def _is_local(uri: str) -> bool:
    return not storage.is_remote(uri) and ("://" not in uri or uri.startswith("file://"))


def _plain(uri: str) -> str:
    """One form for each place: `file:///a` is `/a`, `minio://b` is `s3://b`."""
    if uri.startswith("file://"):
        return str(storage.local_path(uri))
    if uri.startswith("minio://"):
        return "s3://" + uri.removeprefix("minio://")
    return uri if "://" in uri else str(Path(uri).absolute())
