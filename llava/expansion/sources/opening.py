"""Find out what an annotations URI holds and open it."""

from __future__ import annotations

from fnmatch import fnmatch

from llava import storage
from llava.errors import DataError
from llava.expansion.sources.coco import CocoCorpus
from llava.expansion.sources.corpus import Corpus
from llava.expansion.sources.lists import ListCorpus


def open_corpus(annotations_uri: str, *, split: str, image_prefix: str, limit: int = 0) -> Corpus:
    """Open the images of a COCO annotations folder, or of comma-separated files.

    Args:
        annotations_uri: a folder with `captions_<split>*.json` and optionally `instances_<split>*.json`, or files:
            such COCO files, or image-caption lists (`lists.ListCorpus`).
        split: which files of a folder: `train`, `val`, `train2017`.
        image_prefix: put before each file name.
        limit: only the first so many images; 0: all.

    Raises:
        DataError: nothing there, or a file is not of a known form.
    """
    uris = [uri.strip() for uri in annotations_uri.split(",") if uri.strip()]
    if not uris:
        raise DataError("annotations_uri: empty; expected a folder of COCO annotations, or files")
    if len(uris) == 1 and not _is_file(uris[0]):
        uris = _of_folder(uris[0], split)
    captions = [uri for uri in uris if fnmatch(_name(uri), "captions_*.json")]
    instances = [uri for uri in uris if fnmatch(_name(uri), "instances_*.json")]
    if not captions and not instances:
        return ListCorpus(uris, image_prefix, limit)
    others = [uri for uri in uris if uri not in captions and uri not in instances]
    if others or not captions:
        found = ", ".join(map(_name, others or instances))
        raise DataError(f"annotations_uri: found {found}; expected captions_*.json, and instances_*.json beside it")
    return CocoCorpus(captions, instances, image_prefix, limit)


def _of_folder(folder: str, split: str) -> list[str]:
    names = [item.path for item in storage.list_files(folder) if "/" not in item.path]
    found = [
        name for name in names if fnmatch(name, f"captions_{split}*.json") or fnmatch(name, f"instances_{split}*.json")
    ]
    if not any(name.startswith("captions_") for name in found):
        shown = ", ".join(names[:8]) or "nothing"
        raise DataError(f"{folder}: no captions_{split}*.json; found {shown}; expected COCO's annotations folder")
    for stem in ("captions_", "instances_"):
        several = [name for name in found if name.startswith(stem)]
        if len(several) > 1:
            raise DataError(
                f"{folder}: {' and '.join(several)}; say which with split, e.g. {several[-1][len(stem) : -5]}"
            )
    return [storage.join(folder, name) for name in found]


def _is_file(uri: str) -> bool:
    return storage.size(uri) is not None


def _name(uri: str) -> str:
    return uri.rstrip("/").rsplit("/", 1)[-1]
