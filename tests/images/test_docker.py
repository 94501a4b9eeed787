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

from llava.stages.stage import STAGE_MODULES
from tools.demo_docker import ARBITRARY_UID, strict_arguments
from tools.images.bake import load_images
from tools.images.content import image_files
from tools.images.registry import find_digest

ROOT = Path(__file__).parents[2]
DOCKER = os.environ.get("DOCKER", "docker")
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
    assert first == {"built": ["light", "announce", "train", "evaluate", "export"], "lock_changed": True}
    lock = json.loads((checkout / "images.lock.json").read_text())
    assert lock["pinned"] is True
    for reference in lock["stages"].values():
        tagged, _, digest = reference.partition("@")
        name, _, tag = tagged.rpartition(":")
        assert find_digest(name, tag) == find_digest(name, digest) == digest
    # As a node does: by the reference of the lock, from the registry.
    docker("rmi", lock["stages"]["expand"].partition("@")[0])
    assert "executor-input" in docker("run", "--rm", "--network=none", lock["stages"]["expand"])

    assert build(checkout, *push) == {"built": [], "lock_changed": False}, "nothing changed, nothing is done"

    for path, rebuilt in (
        ("docs/architecture.md", []),
        ("llava/expansion/run.py", ["light"]),
        ("llava/evaluation/run.py", ["evaluate"]),
        ("llava/training/loop.py", ["train"]),
        ("llava/storage/__init__.py", ["light", "announce", "train", "evaluate", "export"]),
    ):
        with (checkout / path).open("a") as file:
            file.write("\n# touched\n")
        assert build(checkout, *push) == {"built": rebuilt, "lock_changed": bool(rebuilt)}, path


@pytest.fixture(scope="module")
def built() -> None:
    """The checkout's images as `:dev`."""
    build(ROOT, "--tag", "dev")


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize(
    ("image", "program"),
    [
        ("llava-light", "executor-input"),
        ("llava-announce", "Usage: llava announce"),
        ("llava-train", "executor-input"),
        ("llava-evaluate", "executor-input"),
        ("llava-export", "executor-input"),
    ],
)
def test_an_image_works_for_any_uid_on_a_read_only_root(image: str, program: str) -> None:
    strict = ["run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    strict += ["--tmpfs=/tmp:mode=1777", "--user=54321:0"]
    assert "modules import" in docker(*strict, f"{image}:dev", "python", "/opt/llava/bin/healthcheck.py")
    assert docker(*strict, f"{image}:dev", "python", "-c", "import getpass; print(getpass.getuser())") == "llava"
    assert program in docker(*strict, f"{image}:dev"), "what it does when it is told nothing"
    config = json.loads(docker("image", "inspect", f"{image}:dev"))[0]["Config"]
    assert config["User"] not in ("", "0", "root") and config["Healthcheck"]
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    stages = load_images(ROOT, os.environ)[image.removeprefix("llava-")].stages
    assert tuple(config["Labels"]["io.llava.stages"].split()) == stages


@pytest.mark.usefixtures("built")
def test_compilers_are_only_where_they_are_needed() -> None:
    for image, expected in (("light", ""), ("export", ""), ("train", "gcc"), ("evaluate", "gcc")):
        found = docker("run", "--rm", "--network=none", f"llava-{image}:dev", "sh", "-c", "command -v gcc || true")
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
def test_the_demo_containers_are_as_strict_as_they_say(tmp_path: Path) -> None:
    import docker as docker_py

    program = """
import json, os
def refused(path):
    try:
        open(path, "w").close()
    except OSError as error:
        return error.strerror
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
    "capabilities": status["CapBnd"].strip("0") + status["CapEff"].strip("0"), "no_new_privs": status["NoNewPrivs"],
    "root": refused("/opt/llava/x"), "world": refused(os.environ["WORLD"] + "/x"), "tmp": refused("/tmp/x"),
    "network": os.listdir("/sys/class/net"),
}))
"""
    world = tmp_path / "world"
    world.mkdir()
    world.chmod(0o777)
    client = docker_py.from_env()
    try:
        arguments = {**strict_arguments(world, ARBITRARY_UID), "environment": {"WORLD": str(world)}}
        said = client.containers.run("llava-light:dev", ["python", "-c", program], remove=True, **arguments)
    finally:
        client.close()
    assert json.loads(said) == {
        "uid": ARBITRARY_UID,
        "gid": ARBITRARY_UID,
        "groups": [ARBITRARY_UID],
        "capabilities": "",
        "no_new_privs": "1",
        "root": "Read-only file system",
        "world": "Read-only file system",
        "tmp": None,
        "network": ["lo"],
    }


@pytest.mark.usefixtures("built")
def test_the_whole_pipeline_in_strict_containers(tmp_path: Path) -> None:
    """`make demo-docker` as a person would run it; what it builds is there already."""
    command = ["make", "--no-print-directory", "demo-docker", f"DOCKER_DEMO_ARGS=--out {tmp_path / 'out'}"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    record = json.loads(next((tmp_path / "out/pipeline").glob("*/run.json")).read_text())
    assert set(record["ran"]) == set(STAGE_MODULES)
    outputs = {name: Path(output["uri"]) for name, output in record["outputs"].items()}
    assert (outputs["projector"] / "projector.safetensors").is_file()
    assert (outputs["model"] / "model.safetensors").is_file()
    assert (outputs["onnx"] / "onnx/vision_encoder.onnx").is_file()
    assert len((outputs["predictions"] / "finetuned.jsonl").read_text().splitlines()) == 24
