"""Manifests survive a round trip and refuse what is not theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from llava import storage
from llava.errors import SettingsError, StorageError
from llava.manifest import Manifest, manifest_uri, read_manifest, sha256, write_manifest


@pytest.mark.parametrize("folder", [True, False])
def test_round_trip(tmp_path: Path, folder: bool) -> None:
    uri = str(tmp_path / "artifact")
    manifest = Manifest(kind="model", stage="finetune", parents={"data": "s3://b/k"}, numbers={"loss": 0.5})
    write_manifest(uri, manifest, folder=folder)
    assert read_manifest(uri, folder=folder) == manifest


def test_an_unfinished_artifact_and_a_foreign_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="manifest.json: no such file"):
        read_manifest(str(tmp_path))
    storage.write_json(manifest_uri(str(tmp_path)), {"kind": "model", "stage": "finetune", "hash": "?"})
    with pytest.raises(SettingsError, match="hash: unknown field"):
        read_manifest(str(tmp_path))


def test_sha256_is_the_standard_one() -> None:
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
