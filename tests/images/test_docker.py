"""The images for real: built, pushed, pinned, not built again, and run as strictly as a cluster would.

`.ci/docker.sh` starts an engine and a registry and sets the environment these tests read.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.images.bake import load_images
from tools.images.content import image_files

ROOT = Path(__file__).parents[2]
DOCKER = os.environ.get("DOCKER", "docker")
ARGUMENTS = os.environ.get("LLAVA_DOCKER_ARGS", "").split()
HEALTH_CHECK = "/opt/llava/bin/healthcheck.py"
REGISTRY = os.environ.get("LLAVA_TEST_REGISTRY", "")

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("LLAVA_DOCKER_TESTS" not in os.environ, reason="run through .ci/docker.sh"),
]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the images are made of, to change at will."""
    copy = tmp_path_factory.mktemp("checkout")
    images = load_images(ROOT, os.environ)
    names = {name for image in images.values() for name in image_files(ROOT, image)}
    extra = [
        ".dockerignore",
        "images/Dockerfile",
        "images/docker-bake.json",
        "docs/architecture.md",
        "images.lock.json",
    ]
    for name in [*names, *extra]:
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    return copy


def build(root: Path, *arguments: str) -> dict[str, Any]:
    """Run the tool; what it prints."""
    command = [sys.executable, "-m", "tools.images", "--root", str(root), "build", *arguments]
    command += [f"--docker-arg={argument}" for argument in ARGUMENTS]
    answer = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert answer.returncode == 0
    result: dict[str, Any] = json.loads(answer.stdout)
    return result


def docker(*arguments: str) -> str:
    """Run the client; its output."""
    return subprocess.run([DOCKER, *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(not REGISTRY, reason="no registry to push to")
def test_push_pin_and_rebuild_exactly_what_changed(checkout: Path) -> None:
    push = ("--registry", REGISTRY, "--push")
    first = build(checkout, *push)
    assert first == {"built": ["light", "train", "export"], "lock_changed": True}
    lock = json.loads((checkout / "images.lock.json").read_text())
    assert lock["pinned"] is True
    for reference in lock["stages"].values():
        docker("pull", "--quiet", reference.partition("@")[0].rpartition(":")[0] + "@" + reference.partition("@")[2])

    assert build(checkout, *push) == {"built": [], "lock_changed": False}, "nothing changed, nothing is done"

    for path, rebuilt in (
        ("docs/architecture.md", []),
        ("components/data_expansion/component.py", ["light"]),
        ("components/export_onnx/component.py", ["export"]),
        ("llava/training/loop.py", ["train"]),
        ("llava/storage.py", ["light", "train", "export"]),
    ):
        with (checkout / path).open("a") as file:
            file.write("\n# touched\n")
        assert build(checkout, *push) == {"built": rebuilt, "lock_changed": bool(rebuilt)}, path


@pytest.fixture(scope="module")
def built() -> None:
    """The checkout's images as `:dev`."""
    build(ROOT, "--tag", "dev")


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("image", ["llava-light", "llava-train", "llava-export"])
def test_an_image_works_for_any_uid_on_a_read_only_root(image: str) -> None:
    strict = ["run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    strict += ["--tmpfs=/tmp:mode=1777", "--user=54321:0"]
    assert "modules import" in docker(*strict, f"{image}:dev", "python", "/opt/llava/bin/healthcheck.py")
    assert docker(*strict, f"{image}:dev", "python", "-c", "import getpass; print(getpass.getuser())") == "llava"
    assert "Usage" in docker(*strict, f"{image}:dev", "llava", "--help")
    config = json.loads(docker("image", "inspect", f"{image}:dev"))[0]["Config"]
    assert config["User"] not in ("", "0", "root") and config["Healthcheck"]
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert config["Labels"]["io.llava.stages"]


@pytest.mark.usefixtures("built")
def test_compilers_are_only_where_they_are_needed() -> None:
    for image, expected in (("llava-light", ""), ("llava-export", ""), ("llava-train", "gcc")):
        found = docker("run", "--rm", "--network=none", f"{image}:dev", "sh", "-c", "command -v gcc || true")
        assert (expected in found) if expected else not found, image


@pytest.mark.usefixtures("built")
def test_the_health_check_finds_what_is_missing() -> None:
    answer = subprocess.run(
        [
            DOCKER,
            "run",
            "--rm",
            "--network=none",
            "--env=LLAVA_HEALTH=no_such_library",
            "llava-light:dev",
            "python",
            HEALTH_CHECK,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1 and "no_such_library" in answer.stderr


@pytest.mark.usefixtures("built")
def test_the_whole_pipeline_in_strict_containers(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "tools.demo_docker", "--no-build", "--out", str(tmp_path / "out")], cwd=ROOT, check=False
    )
    assert answer.returncode == 0
