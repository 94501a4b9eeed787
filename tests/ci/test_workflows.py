"""The workflows call what exists: scripts, make targets, commands and options; the lock is committed safely."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_bounded_pinned_and_least_privileged(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"], "never the default rights"
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
    for step in steps(path):
        if "uses" in step:
            assert re.search(r"@[0-9a-f]{40}$", step["uses"]), f"{step['uses']}: a tag can move; pin the commit"
        # What a contributor can write (titles, branch names) must not be pasted into a shell.
        assert "${{ github.event" not in step.get("run", "") and "${{ github.head_ref" not in step.get("run", "")


def test_scripts_and_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    seen = 0
    for path in WORKFLOWS:
        for step in steps(path):
            for line in step.get("run", "").splitlines():
                for script in re.findall(r"(?:^|\s)((?:tools|\.ci|\.github/kind)/[\w./-]+)", line):
                    assert os.access(ROOT / script, os.X_OK), script
                    seen += 1
                for target in re.findall(r"\bmake ([\w-]+)", line):
                    assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
                    seen += 1
    assert seen >= 3


@pytest.mark.parametrize(
    ("workflow", "command"),
    [
        ("images.yml", ["-m", "tools.images", "build"]),
        ("images.yml", ["-m", "tools.images", "verify"]),
        ("images.yml", ["-m", "tools.images", "references"]),
        ("images.yml", ["pipeline.py", "compile"]),
        ("images.yml", ["pipeline.py", "upload"]),
        ("cluster.yml", ["-m", "tools.images", "build"]),
        ("cluster.yml", ["pipeline.py", "clustertest"]),
    ],
)
def test_options_in_the_workflow_exist(workflow: str, command: list[str]) -> None:
    text = "\n".join(step.get("run", "") for step in steps(ROOT / ".github/workflows" / workflow))
    call = next(line for line in text.splitlines() if " ".join(command) in line)
    options = set(re.findall(r"(?<=\s)--[a-z-]+", call))
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    help_text = subprocess.run(
        [sys.executable, *command, "--help"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert {option for option in options if option not in help_text} == set()


def test_make_targets_do_their_own_set_up() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "demo-docker", "test", "test-fast", "check", "format", "base-models"):
        assert re.search(rf"^{target}: \$\(STAMP\)$", makefile, re.MULTILINE), target


def test_make_help_lists_the_two_commands() -> None:
    text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "make demo" in text and "make test" in text


@pytest.mark.parametrize(("given", "seen"), [(None, None), ("cpu", "cpu")])
def test_make_passes_no_empty_torch_backend_on(given: str | None, seen: str | None) -> None:
    # To the image build an empty one says that torch's own index is not to be asked, and then the CPU build has none.
    environment = {name: value for name, value in os.environ.items() if name not in ("TORCH_BACKEND", "MAKEFLAGS")}
    environment |= {"TORCH_BACKEND": given} if given else {}
    command = ["make", "--no-print-directory", "--eval", "probe: ; @env", "probe"]
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert dict(line.partition("=")[::2] for line in said.splitlines()).get("TORCH_BACKEND") == seen


def test_ci_runs_docker_and_ends_with_the_summary_of_the_whole_suite() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert lines[-2:] == [".ci/docker.sh", "make test"]


def git(folder: Path, *arguments: str) -> str:
    author = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", *author, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of a repository on disk, with a lock."""
    git(tmp_path, "init", "--quiet", "--bare", "origin.git")
    git(tmp_path, "clone", "--quiet", "origin.git", "work")
    work = tmp_path / "work"
    (work / "images.lock.json").write_text("old")
    (work / "other.txt").write_text("old")
    git(work, "add", ".")
    git(work, "commit", "--quiet", "-m", "first")
    git(work, "push", "--quiet", "origin", "HEAD:main")
    return work


def commit_lock(work: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "GIT_"))}
    answer = subprocess.run(
        [str(ROOT / "tools/commit_lock.sh"), str(work)],
        env={**environment, "GITHUB_REF_NAME": "main"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_an_unchanged_lock_is_not_committed(clone: Path) -> None:
    before = git(clone, "rev-parse", "HEAD")
    assert "unchanged" in commit_lock(clone)
    assert git(clone, "rev-parse", "HEAD") == before


def test_a_changed_lock_alone_is_pushed(clone: Path) -> None:
    (clone / "images.lock.json").write_text("new")
    (clone / "other.txt").write_text("not to be committed")
    commit_lock(clone)
    assert git(clone, "show", "origin/main:images.lock.json") == "new"
    assert git(clone, "show", "origin/main:other.txt") == "old"


def test_a_push_that_came_in_between_is_kept(clone: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "-b", "main", "origin.git", "colleague")
    colleague = tmp_path / "colleague"
    (colleague / "other.txt").write_text("theirs")
    git(colleague, "commit", "--quiet", "-am", "theirs")
    git(colleague, "push", "--quiet", "origin", "HEAD:main")
    (clone / "images.lock.json").write_text("new")
    commit_lock(clone)
    git(clone, "fetch", "--quiet")
    assert git(clone, "show", "origin/main:images.lock.json") == "new"
    assert git(clone, "show", "origin/main:other.txt") == "theirs"


def test_every_image_is_scanned() -> None:
    scanned = {
        step["with"]["image-ref"]
        for step in steps(ROOT / ".github/workflows/images.yml")
        if "trivy" in step.get("uses", "")
    }
    bake = json.loads((ROOT / "images/docker-bake.json").read_text())
    targets = bake["group"]["default"]["targets"]
    assert scanned == {f"${{{{ steps.pinned.outputs.{name} }}}}" for name in targets}
