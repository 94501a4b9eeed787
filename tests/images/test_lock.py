"""`images.lock.json` and the command line around it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.images import image_of
from llava.stages.stage import STAGE_MODULES
from tools.images.__main__ import main
from tools.images.bake import load_images
from tools.images.content import content_hash
from tools.images.lock import faults, read_lock, write_lock

ROOT = Path(__file__).parents[2]
DIGEST = "@sha256:" + "1" * 64


def pin(root: Path, suffix: str = DIGEST) -> bool:
    images = load_images(root, {})
    contents = {name: content_hash(root, image) for name, image in images.items()}
    references = {
        name: f"reg.example.com/{image.repository}:{contents[name]}{suffix}" for name, image in images.items()
    }
    return write_lock(root, images, references, contents)


def test_a_pinned_lock_is_a_release_until_something_changes(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pin(checkout)
    assert not pin(checkout), "writing the same again changes nothing"
    assert read_lock(checkout)["pinned"] is True
    assert image_of("finetune", checkout / "images.lock.json").endswith(DIGEST)
    assert main(["--root", str(checkout), "verify"]) == 0
    (checkout / "components/train/component.py").write_text("changed")
    capsys.readouterr()
    assert main(["--root", str(checkout), "verify"]) == 1
    message = capsys.readouterr().err
    assert "demo-train: built from content" in message and "demo-light" not in message


def test_an_unpinned_lock_is_not_a_release(checkout: Path) -> None:
    pin(checkout, suffix="")
    assert read_lock(checkout)["pinned"] is False
    images = load_images(checkout, {})
    contents = {name: content_hash(checkout, image) for name, image in images.items()}
    assert sum("not pinned" in fault for fault in faults(checkout, images, contents)) == 2


def test_references_for_signing_and_scanning(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pin(checkout)
    assert main(["--root", str(checkout), "references"]) == 0
    said = capsys.readouterr().out
    assert said == f"light=reg.example.com/demo-light{DIGEST}\ntrain=reg.example.com/demo-train{DIGEST}\n"
    pin(checkout, suffix="")
    assert main(["--root", str(checkout), "references"]) == 2
    assert "is not pinned to a digest" in capsys.readouterr().err


def test_a_stage_that_points_elsewhere(checkout: Path) -> None:
    pin(checkout)
    lock = read_lock(checkout)
    lock["stages"]["expand"] = "somewhere/else"
    (checkout / "images.lock.json").write_text(json.dumps(lock))
    images = load_images(checkout, {})
    contents = {name: content_hash(checkout, image) for name, image in images.items()}
    assert [fault.split(":")[0] for fault in faults(checkout, images, contents)] == ["stage expand"]


def test_another_format_version(checkout: Path) -> None:
    (checkout / "images.lock.json").write_text('{"format_version": 9}')
    with pytest.raises(ValueError, match="format_version: found 9; expected 1"):
        read_lock(checkout)


def test_the_lock_of_this_checkout_names_an_image_for_every_stage() -> None:
    lock = read_lock(ROOT)
    images = load_images(ROOT, {})
    assert set(lock["stages"]) == set(STAGE_MODULES) == {stage for image in images.values() for stage in image.stages}
    for image in images.values():
        reference = lock["images"][image.repository]["reference"]
        assert {lock["stages"][stage] for stage in image.stages} <= {reference}


def test_wrong_image_name(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(checkout), "hash", "heavy"]) == 2
    assert "found 'heavy'; expected one of light, train" in capsys.readouterr().err


def test_push_without_a_registry(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(checkout), "build", "--push"]) == 2
    assert "--push needs --registry" in capsys.readouterr().err


def test_the_tool_runs_as_a_program(checkout: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "tools.images", "--root", str(checkout), "hash"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = [line.split()[0] for line in answer.stdout.splitlines()]
    assert names == ["demo-light", "demo-train"]
