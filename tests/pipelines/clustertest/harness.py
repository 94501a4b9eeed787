"""How the tests of the cluster test call it, and look at what it left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

import pipeline
from llava import storage
from llava.pipelines.commands import main
from tests.s3_server import S3Server


def tiny_world(folder: Path) -> Callable[[str], dict[str, Any]]:
    """A world of two files: nothing reads it here."""
    (folder / "annotations").mkdir()
    (folder / "annotations" / "questions_val.jsonl").write_text("{}\n")
    (folder / "1.jpg").write_bytes(b"x")
    return lambda place: {
        "recipe": "tiny", "images_uri": place, "expand_annotations_uri": f"{place}/annotations",
        "evaluate_benchmark": "custom", "evaluate_questions_uri": f"{place}/annotations/questions_val.jsonl",
    }  # fmt: skip


def kubeconfig(folder: Path, server: str) -> Path:
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {"token": "of-me"}}],
    }  # fmt: skip
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def clustertest(*arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """`pipeline.py clustertest`: its exit status, and the table by probe."""
    out = Path("table.json")
    try:
        code = main(pipeline.build, ["clustertest", "--yes", "--out", str(out), *arguments], tiny_world)
    except SystemExit as error:
        code = int(error.code or 0)
    return code, {row["probe"]: row for row in json.loads(out.read_text())} if out.exists() else {}


def left_in(bucket: S3Server) -> list[str]:
    return [file.path for file in storage.list_files(bucket.uri)]
