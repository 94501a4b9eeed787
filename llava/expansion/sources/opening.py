"""Find out what an annotations URI holds, by content and not by name, and open it."""

from __future__ import annotations

from fnmatch import fnmatch

from llava import storage
from llava.data.row_sources import HUB, TABLE, TAR, files_of, form_of
from llava.errors import DataError
from llava.expansion.sources.coco import CocoReader
from llava.expansion.sources.containers import ContainerCorpus
from llava.expansion.sources.corpus import Corpus
from llava.expansion.sources.json_stream import JsonStream
from llava.expansion.sources.lists import ListCorpus
from llava.expansion.sources.open_images import BOX_COLUMNS, OpenImagesReader
from llava.expansion.sources.visual_genome import VisualGenomeReader

COCO, LIST, CONTAINER = "COCO's form", "a list of images with captions", "shards or tables"
REGIONS, REGION_IMAGES = "Visual Genome regions", "Visual Genome image data"
OPEN_BOXES, OPEN_CLASSES, OPEN_CAPTIONS = "Open Images boxes", "Open Images classes", "Open Images captions"
_TOGETHER = ({COCO}, {LIST}, {CONTAINER}, {REGIONS, REGION_IMAGES}, {OPEN_BOXES, OPEN_CLASSES, OPEN_CAPTIONS})
_START = 16 << 10
_KNOWN = "COCO's annotations folder, another folder of known annotations, or files"


def open_corpus(annotations_uri: str, *, split: str, image_prefix: str, limit: int = 0, images_uri: str = "") -> Corpus:
    """Open the images of a folder of annotations, or of comma-separated files.

    Args:
        annotations_uri: a folder, files that belong together, or a data set of the hub (`hf://datasets/owner/name`).
        split: which files of a folder: `train`, `val`, `train2017`.
        image_prefix: put before each file name.
        limit: only the first so many images; 0: all.
        images_uri: where the images are, for annotations that do not tell their sizes; images inside tables go there.

    Raises:
        DataError: nothing there, or a file is not of a known form.
    """
    uris = [uri.strip() for uri in annotations_uri.split(",") if uri.strip()]
    if not uris:
        raise DataError("annotations_uri: empty; expected a folder of annotations, or files")
    if len(uris) == 1 and uris[0].startswith(HUB):
        uris = _of_split(files_of(uris[0]), split)
    elif len(uris) == 1 and storage.size(uris[0]) is None:
        uris = _of_folder(uris[0], split)
    by_form: dict[str, list[str]] = {}
    for uri in uris:
        by_form.setdefault(form_of_content(uri), []).append(uri)
    forms = set(by_form)
    if not any(forms <= together for together in _TOGETHER):
        found = ", ".join(f"{_name(names[0])} is {form}" for form, names in by_form.items())
        raise DataError(f"annotations_uri: {found}; expected files that belong together")
    if COCO in forms:
        return CocoReader(image_prefix).read(uris, limit)
    if CONTAINER in forms:
        return ContainerCorpus(uris, images_uri, limit)
    if LIST in forms:
        return ListCorpus(uris, image_prefix, limit)
    if forms & {REGIONS, REGION_IMAGES}:
        if REGIONS not in forms:
            raise DataError(
                f"{uris[0]}: images without regions; expected Visual Genome's region_descriptions.json, too"
            )
        return VisualGenomeReader(image_prefix).read(by_form[REGIONS], by_form.get(REGION_IMAGES, []), limit)
    boxes, classes, captions = (by_form.get(form, []) for form in (OPEN_BOXES, OPEN_CLASSES, OPEN_CAPTIONS))
    return OpenImagesReader(image_prefix, images_uri).read(boxes, classes, captions, limit)


def form_of_content(uri: str) -> str:
    """What a file of annotations is, by its first bytes or members.

    Raises:
        DataError: JSON that is none of it, or is broken.
        StorageError: it cannot be read.
    """
    if form_of(uri) in (TAR, TABLE):
        return CONTAINER
    if uri.endswith((".csv", ".tsv", ".jsonl")):
        return _of_start(storage.read_start(uri, _START)[0].decode("utf-8-sig", "replace"))
    seen = []
    for key, _, value in JsonStream(storage.as_local(uri), uri):
        if key == "":
            row = value if isinstance(value, dict) else {}
            if isinstance(row.get("regions"), list):
                return REGIONS
            return REGION_IMAGES if "image_id" in row and "url" in row and "caption" not in row else LIST
        if key in ("images", "annotations"):
            return COCO
        seen.append(key)
    if seen:
        found = ", ".join(dict.fromkeys(seen))
        raise DataError(f"{uri}: an object with {found}; expected COCO's lists 'images' and 'annotations', or a list")
    return LIST


def _of_start(text: str) -> str:
    first = text.lstrip().split("\n", 1)[0].strip()
    if all(name in first.split(",") for name in BOX_COLUMNS):
        return OPEN_BOXES
    if first.startswith("/m/") or first == "LabelName,DisplayName":
        return OPEN_CLASSES
    return OPEN_CAPTIONS if '"image_id"' in first and '"open_images' in first.replace(" ", "") else LIST


def _of_folder(folder: str, split: str) -> list[str]:
    paths = sorted(item.path for item in storage.list_files(folder))
    names = [path for path in paths if "/" not in path]
    if found := _of_coco(folder, names, split):
        return [storage.join(folder, name) for name in found]
    # Roboflow has a folder for each split, and calls one of them valid.
    others = ("valid",) if split == "val" else ()
    below = [path for path in paths if path.count("/") == 1 and path.split("/")[0] in (split, *others)]
    tables = [path for path in paths if form_of(path) in (TAR, TABLE) and path.count("/") < 2]
    for held in (names, below):
        if chosen := _annotations(folder, held, split):
            return chosen
    if tables:
        return _of_split([storage.join(folder, path) for path in tables], split)
    shown = ", ".join(paths[:8]) or "nothing"
    raise DataError(f"{folder}: no captions_{split}*.json; found {shown}; expected {_KNOWN}")


def _of_coco(folder: str, names: list[str], split: str) -> list[str]:
    """COCO's own files of the split, told by their names, because its folder holds others beside them."""
    found = [
        name for name in names if fnmatch(name, f"captions_{split}*.json") or fnmatch(name, f"instances_{split}*.json")
    ]
    for stem in ("captions_", "instances_"):
        several = [name for name in found if name.startswith(stem)]
        if len(several) > 1:
            raise DataError(
                f"{folder}: {' and '.join(several)}; say which with split, e.g. {several[-1][len(stem) : -5]}"
            )
    return found


def _annotations(folder: str, paths: list[str], split: str) -> list[str]:
    """The files of annotations among `paths`, those of the split where their names tell; images lie beside them."""
    forms = {}
    for path in paths:
        if path.endswith((".json", ".csv", ".jsonl")):
            uri = storage.join(folder, path)
            try:
                form = form_of_content(uri)
            except DataError:
                continue  # some other JSON: a data set's description, a licence
            if form != LIST:
                forms[uri] = form
    chosen = []
    for form in dict.fromkeys(forms.values()):
        of_form = [uri for uri in forms if forms[uri] == form]
        named = [uri for uri in of_form if split in _name(uri)]
        of_form = named or of_form
        if len(of_form) > 1:
            shown = " and ".join(map(_name, of_form))
            raise DataError(f"{folder}: {shown} are all {form}; say which with split, or name the files")
        chosen += of_form
    return chosen


def _of_split(uris: list[str], split: str) -> list[str]:
    """`train-00000-of-00004.parquet` and its kin; all where the names tell no split."""
    return [uri for uri in uris if _name(uri).startswith(split)] or uris


def _name(uri: str) -> str:
    return uri.rstrip("/").rsplit("/", 1)[-1]
