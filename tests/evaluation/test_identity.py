"""A model is what its files contain: nothing else tells two of one architecture apart."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llava.contents import hashes_of
from llava.errors import SettingsError
from llava.evaluation.identity import identity_of
from llava.manifest import Manifest, sha256, write_manifest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def model(folder: Path, weights: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_two_models_of_one_architecture_are_two(tmp_path: Path) -> None:
    one, other, copy = (model(tmp_path / name, data) for name, data in (("a", b"1111"), ("b", b"2222"), ("c", b"1111")))
    assert identity_of(str(one), "model") == identity_of(str(copy), "model") != identity_of(str(other), "model")
    (one / "README.md").write_text("about it")
    assert identity_of(str(one), "model") == identity_of(str(copy), "model")


def test_weights_overwritten_in_place_are_another_model(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", b"1111")
    before = identity_of(str(folder), "model")
    (folder / "model.safetensors").write_bytes(b"2222")
    assert identity_of(str(folder), "model") != before


def test_a_file_that_did_not_change_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model(tmp_path / "m", b"1111")
    old = 1_700_000_000
    for path in folder.iterdir():
        os.utime(path, (old, old))
    read: list[str] = []
    real = __import__("llava.manifest", fromlist=["sha256_of"]).sha256_of

    def counted(path: Path) -> tuple[str, int]:
        read.append(path.name)
        digest, size = real(path)
        return str(digest), int(size)

    monkeypatch.setattr("llava.contents.sha256_of", counted)
    first = hashes_of(folder)
    assert sorted(read) == ["config.json", "model.safetensors"] and hashes_of(folder) == first and len(read) == 2
    (folder / "model.safetensors").write_bytes(b"3333")  # the same size; another time
    os.utime(folder / "model.safetensors", (old + 1, old + 1))
    assert hashes_of(folder)["model.safetensors"] == sha256(b"3333") and len(read) == 3
    (tmp_path / "cache/llava/file-hashes.json").write_text("{torn")
    assert hashes_of(folder)["model.safetensors"] == sha256(b"3333")


def test_what_the_manifest_says_is_verified(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", b"1111")
    write_manifest(str(folder), Manifest(kind="model", stage="finetune", files={"model.safetensors": sha256(b"1111")}))
    identity_of(str(folder), "model")
    (folder / "model.safetensors").write_bytes(b"2222")
    with pytest.raises(SettingsError, match=r"model.safetensors has sha256 .*manifest.json says"):
        identity_of(str(folder), "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SettingsError, match=r"model.safetensors is missing"):
        identity_of(str(folder), "model")


def test_the_manifest_itself_does_not_make_another_model(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", b"1111")
    bare = identity_of(str(folder), "model")
    write_manifest(str(folder), Manifest(kind="model", stage="finetune"))
    assert identity_of(str(folder), "model") == bare and json.loads((folder / "manifest.json").read_text())
