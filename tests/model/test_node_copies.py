"""Base models in a store: settings without weights, weights once a node, faults found before anything is fetched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llava import storage
from llava.errors import SettingsError, StorageError
from llava.manifest import sha256
from llava.model.node_copies import node_copy
from llava.model.special_tokens import load_tokenizer
from llava.node_cache import NODE_CACHE
from llava.storage import clients
from tests.counting_proxy import Traffic, counting
from tests.model.vicuna_form import write_vicuna_form
from tests.s3_server import S3Server

pytestmark = pytest.mark.slow


@pytest.fixture
def counted(moto_s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[S3Server, Traffic]]:
    with counting(moto_s3) as (server, traffic):
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(NODE_CACHE, str(tmp_path / "node"))
        clients.forget_client()
        yield server, traffic
    clients.forget_client()


def put(server: S3Server, folder: Path) -> str:
    uri = f"{server.uri}/base/{folder.name}"
    storage.upload(folder, uri)
    return uri


def test_settings_cost_no_weights_and_weights_are_fetched_in_one_form(
    counted: tuple[S3Server, Traffic], tmp_path: Path
) -> None:
    server, traffic = counted
    folder = write_vicuna_form(tmp_path / "vicuna", legacy=False)
    for name in ("flax_model.msgpack", "tf_model.h5", "onnx/model.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"0" * 10_000_000)
    uri = put(server, folder)
    traffic.reset()
    load_tokenizer(uri)
    load_tokenizer(uri)
    small = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".json", ".model"))
    assert traffic.bytes_read() == small
    copy = node_copy(uri, "model.language_model", weights=True)
    weights = sum(path.stat().st_size for path in folder.glob("pytorch_model-*.bin"))
    assert traffic.bytes_read() == small + weights
    assert sorted(path.name for path in copy.glob("*.bin")) == sorted(path.name for path in folder.glob("*.bin"))
    node_copy(uri, "model.language_model", weights=True)
    assert traffic.bytes_read() == small + weights


def test_safetensors_go_before_bin(counted: tuple[S3Server, Traffic], tiny_llama_dir: Path, tmp_path: Path) -> None:
    server, traffic = counted
    uri = put(server, tiny_llama_dir)
    storage.write_bytes(f"{uri}/pytorch_model.bin", b"0" * 1_000_000)
    traffic.reset()
    node_copy(uri, "model.language_model", weights=True)
    assert traffic.gets(f"base/{tiny_llama_dir.name}/pytorch_model.bin") == 0
    assert traffic.bytes_read() == sum(path.stat().st_size for path in tiny_llama_dir.iterdir())


CHILD = (
    "import sys; from llava.model.node_copies import node_copy\n"
    "print(sorted(p.name for p in node_copy(sys.argv[1], 'm', weights=True).iterdir()))"
)


def test_ranks_of_a_node_fetch_it_once(counted: tuple[S3Server, Traffic], tiny_llama_dir: Path) -> None:
    server, traffic = counted
    uri = put(server, tiny_llama_dir)
    traffic.reset()
    environment = {**os.environ, **server.environment}
    ranks = [
        subprocess.Popen([sys.executable, "-c", CHILD, uri], env=environment, stdout=subprocess.PIPE) for _ in range(4)
    ]
    told = {rank.communicate(timeout=120)[0] for rank in ranks}
    assert len(told) == 1 and b"model.safetensors" in told.pop()
    assert traffic.bytes_read() == sum(path.stat().st_size for path in tiny_llama_dir.iterdir())


def test_an_index_that_names_a_missing_shard_is_found_before_any_is_fetched(
    counted: tuple[S3Server, Traffic], tmp_path: Path
) -> None:
    server, traffic = counted
    folder = write_vicuna_form(tmp_path / "vicuna", legacy=False)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    uri = put(server, folder)
    traffic.reset()
    with pytest.raises(
        SettingsError, match=r"model\.language_model: .*names pytorch_model-00002-of-00002\.bin, which is"
    ):
        node_copy(uri, "model.language_model", weights=True)
    assert traffic.gets("base/vicuna/pytorch_model-0") == 0


def test_damage_is_found(counted: tuple[S3Server, Traffic], tiny_llama_dir: Path) -> None:
    server, _ = counted
    uri = put(server, tiny_llama_dir)
    whole = (tiny_llama_dir / "model.safetensors").read_bytes()
    storage.write_bytes(f"{uri}/model.safetensors", whole[:-100])
    with pytest.raises(StorageError, match=r"model\.safetensors: damaged: \d+ bytes, and its header describes"):
        node_copy(uri, "m", weights=True)
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    storage.write_bytes(f"{uri}/model.safetensors", flipped)
    storage.write_text(f"{uri}/manifest.json", json.dumps({"files": {"model.safetensors": sha256(whole)}}))
    with pytest.raises(StorageError, match=r"model\.safetensors: damaged: its SHA-256 is not the manifest's"):
        node_copy(uri, "m", weights=True)
    storage.write_bytes(f"{uri}/model.safetensors", whole)  # mended: the copy follows
    assert (node_copy(uri, "m", weights=True) / "model.safetensors").read_bytes() == whole


def test_what_is_no_model(counted: tuple[S3Server, Traffic], tmp_path: Path) -> None:
    server, _ = counted
    storage.write_text(f"{server.uri}/base/x/config.json", "{}")
    with pytest.raises(SettingsError, match=r"m: .*base/x: no weights there; expected model\.safetensors or"):
        node_copy(f"{server.uri}/base/x", "m", weights=True)
    with pytest.raises(StorageError, match="base/none: no such"):
        node_copy(f"{server.uri}/base/none", "m", weights=False)
    storage.write_text(f"{server.uri}/base/x/model.safetensors.index.json", "[]")
    with pytest.raises(SettingsError, match="not an index of weight files"):
        node_copy(f"{server.uri}/base/x", "m", weights=True)


def test_a_model_saved_anew_under_the_same_name_is_fetched_anew(
    counted: tuple[S3Server, Traffic], tiny_llama_dir: Path, tmp_path: Path
) -> None:
    server, _ = counted
    uri = put(server, tiny_llama_dir)
    first = node_copy(uri, "m", weights=True)
    options: dict[str, Any] = json.loads((tiny_llama_dir / "config.json").read_text())
    storage.write_text(f"{uri}/config.json", json.dumps({**options, "rope_theta": 5.0}))
    second = node_copy(uri, "m", weights=True)
    assert second != first and json.loads((second / "config.json").read_text())["rope_theta"] == 5.0
