"""What the check of all rows found, kept beside the checkpoints, so that a run that is started again trains at once.

    row-check-<key>.safetensors   positions of the usable rows, their lengths, supervised tokens and images, sizes of
                                  images where AnyRes needs them; the rows left out, in its metadata

The key is a hash of the rows, the images' root, and all that decides how a row is encoded: anything else is another
check. Deleting the file makes the next start look at everything anew.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from llava import storage
from llava.data.check import CheckResult
from llava.data.dataset import RowFacts
from llava.data.labels import RowEncoder
from llava.data.preprocess import Preprocessor
from llava.data.records import RecordFile
from llava.errors import RowError, StorageError, StoreAwayError

Array = npt.NDArray[Any]
FORMAT = 1


def key(file: RecordFile, images_uri: str, encoder: RowEncoder, preprocessor: Preprocessor) -> str:
    """What a verdict belongs to."""
    parts = [FORMAT, file.sha256, images_uri, encoder.fingerprint(), preprocessor.fingerprint()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def keep(folder: str, key: str, file: RecordFile, result: CheckResult) -> None:
    """Write a verdict.

    Raises:
        StorageError: as `storage.write_bytes`.
    """
    from safetensors.numpy import save

    refs = _refs(file)
    arrays: dict[str, Array] = {
        "good": np.array(result.good, dtype=np.int64),
        "lengths": result.facts.lengths,
        "supervised": result.facts.supervised,
        "image_counts": result.facts.image_counts,
        "sizes": np.array([result.sizes.get(ref, (0, 0)) for ref in refs], dtype=np.int32).reshape(-1, 2)
        if result.sizes
        else np.zeros((0, 2), np.int32),
    }
    digest = _digest(arrays)
    problems = [[p.file, p.row, p.field, str(p), p.expected, p.problem] for p in result.problems]
    note = {"key": key, "sha256": digest, "problems": problems, "notes": dict(result.notes), "total": result.total}
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    storage.write_bytes(_place(folder, key), save(whole, metadata={"verdict": json.dumps(note)}))


def recall(folders: Sequence[str], key: str, file: RecordFile) -> tuple[str, CheckResult] | None:
    """(place, verdict) of the first folder that has one for these rows; one that is damaged is none.

    Raises:
        StoreAwayError: the store does not answer.
    """
    for folder in folders:
        place = _place(folder, key)
        try:
            data = storage.read_bytes(place)
        except StoreAwayError:
            raise
        except StorageError:
            continue
        if (result := _parsed(data, key, file)) is not None:
            return place, result
    return None


def _parsed(data: bytes, key: str, file: RecordFile) -> CheckResult | None:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)
        length = int.from_bytes(data[:8], "little")
        note = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["verdict"])
        if note["key"] != key or note["sha256"] != _digest(arrays):
            return None
        good = arrays["good"].tolist()
        sizes_N2 = arrays["sizes"]
        problems = [_problem(*values) for values in note["problems"]]
        sizes = (
            {ref: (w, h) for ref, (w, h) in zip(_refs(file), sizes_N2.tolist(), strict=True) if w}
            if len(sizes_N2)
            else {}
        )
        facts = RowFacts(arrays["lengths"], arrays["supervised"], arrays["image_counts"])
        return CheckResult(good, facts, sizes, problems, Counter(note["notes"]), int(note["total"]))
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None


def _problem(file: str, row: int, field: str, message: str, expected: str, problem: str) -> RowError:
    error = RowError(file, row, field, "", expected, problem=problem)
    error.args = (message,)
    return error


def _refs(file: RecordFile) -> list[str]:
    return list(dict.fromkeys(ref for record in file.records for ref in record.images))


def _digest(arrays: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name}:{arrays[name].dtype}:{arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _place(folder: str, key: str) -> str:
    return storage.join(folder, f"row-check-{key}.safetensors")
