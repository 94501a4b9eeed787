"""The scripts that images.yml calls: login, base image, signatures, and the lock as a commit or a pull request."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ci.test_workflows import ROOT, git

DIGEST = "sha256:" + "7" * 64
IMAGES = ("light", "announce", "train", "evaluate", "export")
# Programs that need an account, a registry or GitHub stand here as ones that write down what they are asked.
RECORDER = """#!/bin/sh
echo "$(basename "$0") $*" >> "$SEEN"
case "$*" in
  *--password-stdin*) cat >> "$SEEN"; echo >> "$SEEN" ;;
  *imagetools*) echo "$ANSWER" ;;
  "pr list"*) echo "$ANSWER" ;;
  "pr create"*) echo https://example.com/pull/1 ;;
esac
"""


class Tools:
    """Recorded programs in front of the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder / "bin", folder / "seen"
        self.folder.mkdir()
        self.seen.touch()
        for name in ("docker", "cosign", "gh"):
            (self.folder / name).write_text(RECORDER)
            (self.folder / name).chmod(0o755)

    def run(self, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "GIT_", "REG"))}
        path = f"{self.folder}:{kept['PATH']}"
        environment = {"ANSWER": "", **kept, "PATH": path, "SEEN": str(self.seen), "PYTHON": sys.executable}
        return subprocess.run(
            [str(ROOT / "tools" / script), *arguments],
            env={**environment, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def asked(self) -> list[str]:
        return self.seen.read_text().splitlines()


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return Tools(tmp_path)


def test_login_to_any_registry(tools: Tools) -> None:
    answer = tools.run(
        "registry_login.sh",
        REGISTRY_PREFIX="registry.example.com:5000/team/llava",
        REGISTRY_USER="robot",
        REGISTRY_PASSWORD="s3cret",
        GITHUB_TOKEN="github",
    )
    assert answer.returncode == 0, answer.stderr
    assert tools.asked() == ["docker login registry.example.com:5000 --username robot --password-stdin", "s3cret"]


def test_githubs_token_goes_to_github_alone(tools: Tools) -> None:
    given = {"REGISTRY_USER": "robot", "REGISTRY_PASSWORD": "", "GITHUB_TOKEN": "github"}
    answer = tools.run("registry_login.sh", REGISTRY_PREFIX="registry.example.com/team", **given)
    assert answer.returncode == 1 and "secret REGISTRY_PASSWORD" in answer.stderr
    assert tools.asked() == []
    assert tools.run("registry_login.sh", REGISTRY_PREFIX="ghcr.io/team", **given).returncode == 0
    assert tools.asked() == ["docker login ghcr.io --username robot --password-stdin", "github"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A checkout's `images/` alone."""
    folder = tmp_path / "checkout" / "images"
    folder.mkdir(parents=True)
    for name in ("Dockerfile", "docker-bake.json"):
        shutil.copy(ROOT / "images" / name, folder / name)
    return folder


def test_the_base_image_is_pinned_in_both_files(tools: Tools, images: Path) -> None:
    answer = tools.run("update_base.sh", str(images.parent), ANSWER=DIGEST)
    assert answer.returncode == 0, answer.stderr
    pinned = f"python:3.11-slim-bookworm@{DIGEST}"
    assert f"\nARG BASE_IMAGE={pinned}\n" in (images / "Dockerfile").read_text()
    assert json.loads((images / "docker-bake.json").read_text())["variable"]["BASE_IMAGE"] == {"default": pinned}
    assert "imagetools inspect python:3.11-slim-bookworm " in tools.asked()[0], "by its tag, not by the digest it had"


def test_a_registry_that_names_no_digest_changes_nothing(tools: Tools, images: Path) -> None:
    before = (images / "Dockerfile").read_text()
    answer = tools.run("update_base.sh", str(images.parent), ANSWER="toomanyrequests")
    assert answer.returncode == 1 and "names no digest, but toomanyrequests" in answer.stderr
    assert (images / "Dockerfile").read_text() == before


def test_the_base_image_of_this_checkout_is_pinned_alike() -> None:
    lines = (ROOT / "images/Dockerfile").read_text().splitlines()
    (pinned,) = [line.removeprefix("ARG BASE_IMAGE=") for line in lines if line.startswith("ARG BASE_IMAGE=")]
    assert "@sha256:" in pinned
    variables = json.loads((ROOT / "images/docker-bake.json").read_text())["variable"]
    assert variables["BASE_IMAGE"]["default"] == pinned


@pytest.mark.slow
def test_every_pinned_image_is_signed(tools: Tools, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "tools", checkout / "tools")
    shutil.copytree(ROOT / "images", checkout / "images", ignore=shutil.ignore_patterns("locks"))
    pinned = {
        name: {"reference": f"reg.example.com:5000/t/{name}:tag@{DIGEST}", "content": "x"}
        for name in (f"llava-{each}" for each in IMAGES)
    }
    (checkout / "images.lock.json").write_text(json.dumps({"format_version": 1, "stages": {}, "images": pinned}))
    script = str(checkout / "tools/sign_images.sh")
    answer = tools.run(script)
    assert answer.returncode == 0, answer.stderr
    assert tools.asked() == [f"cosign sign --yes reg.example.com:5000/t/llava-{name}@{DIGEST}" for name in IMAGES]
    pinned["llava-export"]["reference"] = "llava-export:dev"
    (checkout / "images.lock.json").write_text(json.dumps({"format_version": 1, "stages": {}, "images": pinned}))
    answer = tools.run(script)
    assert answer.returncode != 0 and "llava-export: llava-export:dev is not pinned to a digest" in answer.stderr


@pytest.fixture
def protected(tmp_path: Path) -> Path:
    """A clone of a repository whose main branch takes no push."""
    git(tmp_path, "init", "--quiet", "--bare", "origin.git")
    git(tmp_path, "clone", "--quiet", "origin.git", "work")
    work = tmp_path / "work"
    (work / "images.lock.json").write_text("old")
    git(work, "add", ".")
    git(work, "commit", "--quiet", "-m", "first")
    git(work, "push", "--quiet", "origin", "HEAD:main")
    hook = tmp_path / "origin.git/hooks/update"
    hook.write_text('#!/bin/sh\n[ "$1" != refs/heads/main ] || { echo "protected branch" >&2; exit 1; }\n')
    hook.chmod(0o755)
    (work / "images.lock.json").write_text("new")
    return work


@pytest.mark.parametrize("there", ["", "https://example.com/pull/7"], ids=["none yet", "one is open"])
def test_a_protected_branch_gets_one_pull_request(there: str, tools: Tools, protected: Path) -> None:
    before = git(protected, "rev-parse", "origin/main")
    variables = {"GITHUB_REF_NAME": "main", "REVISION": "abc", "ANSWER": there}
    answer = tools.run("commit_lock.sh", str(protected), **variables)
    assert answer.returncode == 0, answer.stderr
    git(protected, "fetch", "--quiet")
    assert git(protected, "show", "origin/images-lock:images.lock.json") == "new"
    assert git(protected, "rev-parse", "origin/main") == before
    created = [line for line in tools.asked() if line.startswith("gh pr create --head images-lock --base main")]
    assert len(created) == (0 if there else 1)
    assert f"pinned images in {there or 'https://example.com/pull/1'}" in answer.stdout


def test_a_new_base_image_is_committed_with_the_lock(tools: Tools, protected: Path) -> None:
    (protected.parent / "origin.git/hooks/update").unlink()
    (protected / "images").mkdir()
    (protected / "images/Dockerfile").write_text("ARG BASE_IMAGE=a@sha256:1\n")
    git(protected, "add", ".")
    git(protected, "commit", "--quiet", "-m", "images")
    git(protected, "push", "--quiet", "origin", "HEAD:main")
    (protected / "images/Dockerfile").write_text("ARG BASE_IMAGE=a@sha256:2\n")
    answer = tools.run("commit_lock.sh", str(protected), GITHUB_REF_NAME="main")
    assert answer.returncode == 0, answer.stderr
    git(protected, "fetch", "--quiet")
    assert git(protected, "show", "origin/main:images/Dockerfile") == "ARG BASE_IMAGE=a@sha256:2"
    assert tools.asked() == [], "no pull request"
