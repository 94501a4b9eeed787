"""Base models of 7B and 13B fetched by the ranks of a node: bytes, requests and scratch, without a byte of weights.

The store is a table of names and sizes; what it gives is zeros behind a header, and zeros are not written down, so that
the files are sparse.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llava import local_files
from llava.errors import StorageError
from llava.model.node_copies import node_copy
from llava.node_cache import NODE_CACHE
from llava.storage import fetching, s3
from llava.storage.fetching import PART_BYTES
from tests.scale.shapes import true_model

ZEROS = bytes(PART_BYTES)


@dataclass
class Store:
    """Objects by name: their size and first bytes."""

    sizes: dict[str, int] = field(default_factory=dict)
    heads: dict[str, bytes] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, name: str, size: int, head: bytes = b"") -> None:
        self.sizes[name], self.heads[name] = size, head

    def list_objects(self, uri: str) -> Iterator[tuple[str, int, str]]:
        with self.lock:
            self.requests += 1
        yield from ((name, size, f'"{name}-1"') for name, size in sorted(self.sizes.items()))

    def read_range(self, uri: str, start: int, length: int, tag: str | None = None) -> bytes:
        name = uri.rpartition("/")[2]
        with self.lock:
            self.requests += 1
            self.read[name] = self.read.get(name, 0) + length
        if start == 0 and self.heads[name]:
            return self.heads[name] + ZEROS[: length - len(self.heads[name])]
        return ZEROS if length == len(ZEROS) else ZEROS[:length]

    @property
    def bytes_read(self) -> int:
        return sum(self.read.values())


def published(size: str, form: str) -> Store:
    """A repository as it is published: fp16 shards of at most 10 GB with an index, configuration, tokenizer."""
    store = Store()
    parameters = {name: 2 * p.numel() for name, p in true_model(size).model.named_parameters()}
    parameters = {name: n for name, n in parameters.items() if "vision_tower" not in name and "projector" not in name}
    shards: list[dict[str, int]] = [{}]
    for name, length in parameters.items():
        if sum(shards[-1].values()) + length > 9_950_000_000:
            shards.append({})
        shards[-1][name] = length
    stem = "model" if form == "safetensors" else "pytorch_model"
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"{stem}-{number:05d}-of-{len(shards):05d}.{form}"
        where |= dict.fromkeys(shard, name)
        head, at = b"", 0
        if form == "safetensors":
            entries = {}
            for key, length in shard.items():
                entries[key] = {"dtype": "F16", "shape": [length // 2], "data_offsets": [at, at + length]}
                at += length
            text = json.dumps(entries).encode()
            head = len(text).to_bytes(8, "little") + text
        store.put(name, len(head) + sum(shard.values()), head)
    index = json.dumps({"metadata": {}, "weight_map": where}).encode()
    store.put(f"{stem}.{form}.index.json", len(index), index)
    store.put("config.json", 2, b"{}")
    store.put("tokenizer.model", 499_723, b"\n")
    return store


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node's scratch, on which zeros take no room; of any size."""
    real = os.pwrite

    def pwrite(file: int, data: memoryview, at: int) -> int:
        if at == 0 or len(data) < 1 << 20:
            real(file, data[: 1 << 20], at)
        return len(data)

    monkeypatch.setattr(fetching.os, "pwrite", pwrite)  # type: ignore[attr-defined]
    monkeypatch.setattr(local_files, "free_bytes", lambda path: 10**12)
    monkeypatch.setenv(NODE_CACHE, str(tmp_path / "node"))
    return tmp_path / "node"


def serve(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "list_objects", store.list_objects)
    monkeypatch.setattr(s3, "read_range", store.read_range)


@pytest.mark.parametrize("form", ["safetensors", "bin"])
@pytest.mark.parametrize("size", ["7b", "13b"])
@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_a_node_fetches_a_base_model_once(
    size: str, form: str, ranks: int, node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = published(size, form)
    serve(store, monkeypatch)
    whole = sum(store.sizes.values())
    assert whole > {"7b": 13.4e9, "13b": 26e9}[size]
    with ThreadPoolExecutor(ranks) as pool:
        # As a rank does: configuration, tokenizer and configuration again, then the weights.
        for weights in (False, False, False, True):
            folders = list(
                pool.map(
                    lambda _, weights=weights: node_copy("s3://b/vicuna", "model.language_model", weights=weights),
                    range(ranks),
                )
            )
            if not weights:
                assert store.bytes_read < 2_000_000
    assert len(set(folders)) == 1
    assert store.bytes_read <= 1.05 * whole
    # Parts, a listing a call and rank, and two more for what is fetched.
    assert store.requests <= whole / PART_BYTES + len(store.sizes) + 4 * ranks + 2
    scratch = sum(path.stat().st_size for path in node.rglob("*") if path.is_file())
    assert scratch <= 1.01 * whole


def test_a_node_whose_scratch_is_too_small_fetches_nothing(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = published("13b", "safetensors")
    serve(store, monkeypatch)
    monkeypatch.setattr(local_files, "free_bytes", lambda path: 20 * 10**9)
    with pytest.raises(StorageError, match=r"26\.\d+ GB are to be fetched .* 20\.000 GB are free"):
        node_copy("s3://b/vicuna", "model.language_model", weights=True)
    assert store.bytes_read < 2_000_000  # configuration and tokenizer
