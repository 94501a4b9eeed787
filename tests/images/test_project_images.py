"""The project's own images: each holds every module of ours that its stages can reach, and little else."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from llava.stages.preflight.check import PREFLIGHT_MODULES
from llava.stages.stage import STAGE_MODULES
from tools.images.bake import Image, load_images
from tools.images.code import code_files, imported
from tools.images.content import content_hash, image_files

ROOT = Path(__file__).parents[2]
IMAGES = load_images(ROOT, {})


def laid_out(image: Image, folder: Path) -> None:
    """The image's files as it has them: our package and the recipes below one folder."""
    for name in image_files(ROOT, image):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)


def test_an_image_holds_what_its_stages_can_import_and_no_more() -> None:
    """Computed from the source; where this fails: python -m tools.images code --write."""
    for image in IMAGES.values():
        ours = {name for name in image_files(ROOT, image) if name.startswith(("llava/", "recipes/"))}
        assert ours == set(code_files(ROOT, image)), f"{image.name}; run python -m tools.images code --write"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(IMAGES))
def test_every_module_of_an_image_imports_with_its_files_alone(name: str, tmp_path: Path) -> None:
    """The check that each build ends with; a stage's executor answers too."""
    laid_out(IMAGES[name], tmp_path)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    origin = run("-c", "import llava; print(llava.__file__)")
    assert origin.stdout.startswith(str(tmp_path)), "its files, not the checkout's"
    checked = run(str(tmp_path / "images/healthcheck.py"))
    assert checked.returncode == 0 and "modules import" in checked.stdout, checked.stderr
    for stage in IMAGES[name].stages:
        refused = run("-m", "llava.executor", stage, "--executor-input", "{}")
        assert refused.returncode == 2 and "not an executor input" in refused.stderr, refused.stderr


NOT_IN_A_LOCK = {"mypy_boto3_s3"}  # types alone
# An export builds no adapters and no 4-bit weights (they are merged before), though it can import what would.
NOT_IN_AN_EXPORT = {"bitsandbytes", "peft"}
LOCKS = {"light": "light", "announce": "light", "train": "train", "evaluate": "train", "export": "export"}


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_what_an_image_imports_late_is_in_its_lock(name: str) -> None:
    """Its check imports what stands at the top of modules; this looks inside functions too."""
    lock = (ROOT / "images/locks" / f"{LOCKS[name]}.txt").read_text()
    locked = {line.partition("==")[0].lower() for line in lock.splitlines() if re.match(r"[A-Za-z0-9]", line)}
    distributions = packages_distributions()
    allowed = NOT_IN_A_LOCK | (NOT_IN_AN_EXPORT if name == "export" else set())
    missing = set()
    for path in code_files(ROOT, IMAGES[name]):
        for node in ast.walk(ast.parse((ROOT / path).read_text())) if path.endswith(".py") else ():
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            named += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for top in {module.partition(".")[0] for module in named} - sys.stdlib_module_names - {"llava"} - allowed:
                if not {one.lower().replace("_", "-") for one in distributions.get(top, [top])} & locked:
                    missing.add((top, path))
    assert missing == set()


@pytest.mark.parametrize("stage", sorted(STAGE_MODULES))
def test_a_stage_does_not_import_another(stage: str) -> None:
    """What would make a change in one run the other again."""
    reached = imported(ROOT, ["llava.executor", STAGE_MODULES[stage], PREFLIGHT_MODULES[stage]])
    rooms = {name.split(".")[1] for name in reached if name.count(".")}
    own = {"expand": "expansion", "pretrain": "training", "finetune": "training", "evaluate": "evaluation"}
    assert rooms & {"expansion", "training", "evaluation", "export"} == {own.get(stage, stage)}
    assert not rooms & {"cli", "pipelines", "local"}


def changed_by(path: str, tmp_path: Path) -> set[str]:
    """Which images would be rebuilt if a file of the checkout changed."""
    copy = tmp_path / "checkout"
    names = {name for image in IMAGES.values() for name in image_files(ROOT, image)} | {path}
    for name in [*names, ".dockerignore", "images/Dockerfile", "images/docker-bake.json"]:
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target)
    before = {name: content_hash(copy, image) for name, image in load_images(copy, {}).items()}
    with (copy / path).open("a") as file:
        file.write("\n")
    after = {name: content_hash(copy, image) for name, image in load_images(copy, {}).items()}
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("path", "rebuilt"),
    [
        ("llava/storage/s3.py", {"light", "announce", "train", "evaluate", "export"}),
        ("llava/expansion/asking/ledger.py", {"light"}),
        ("llava/stages/expand.py", {"light"}),
        ("recipes/expansion/prices.yaml", {"light"}),
        ("llava/training/loop.py", {"train"}),
        ("llava/stages/finetune.py", {"train"}),
        ("llava/config.py", {"train", "evaluate", "export"}),
        ("recipes/llava-v1.5-7b.yaml", {"train"}),
        ("llava/evaluation/statistics.py", {"evaluate"}),
        ("llava/stages/evaluate.py", {"evaluate"}),
        ("llava/export/precisions.py", {"export"}),
        ("llava/cli/announcing.py", {"announce"}),
        ("llava/cli/chat.py", set()),
        ("llava/stages/judging.py", set()),
        ("llava/pipelines/graph.py", set()),
        ("components/data_expansion/component.py", set()),
        ("images/locks/export.txt", {"export"}),
        ("docs/architecture.md", set()),
        ("components/data_expansion/README.md", set()),
        ("README.md", set()),
        ("pipeline.py", set()),
        ("tests/conftest.py", set()),
    ],
)
def test_what_a_change_rebuilds(path: str, rebuilt: set[str], tmp_path: Path) -> None:
    assert changed_by(path, tmp_path) == rebuilt


def test_locks_name_exact_versions_with_hashes() -> None:
    for lock in (ROOT / "images" / "locks").glob("*.txt"):
        entries = [entry for entry in lock.read_text().replace("\\\n", " ").splitlines() if entry.strip()]
        assert len(entries) > 30
        for entry in entries:
            assert "==" in entry.split()[0], f"{lock.name}: {entry}"
            assert "--hash=sha256:" in entry or entry.startswith("torch==2.13.0+cpu"), f"{lock.name}: {entry}"


def test_locks_agree_with_constraints() -> None:
    def pins(path: Path) -> dict[str, str]:
        lines = [line.split()[0] for line in path.read_text().splitlines() if "==" in line and not line.startswith(" ")]
        return dict(line.split("==") for line in lines)

    constraints = pins(ROOT / "constraints.txt") | pins(ROOT / "images/overrides.txt")
    for lock in (ROOT / "images" / "locks").glob("*.txt"):
        for name, version in pins(lock).items():
            if name in constraints:
                assert version.partition("+")[0] == constraints[name], f"{lock.name}: {name}; run tools/lock_images.sh"


def test_what_needs_a_gpu_is_where_one_can_be() -> None:
    """QLoRA and Liger's kernels are recipe fields: the image with CUDA holds what they need, the CPU one does not."""
    for lock, expected in (("train", True), ("train-cpu", False)):
        names = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / f"images/locks/{lock}.txt").read_text(), re.MULTILINE))
        assert ({"bitsandbytes", "liger-kernel"} <= names) is expected, lock


def test_an_image_with_torch_for_the_cpu_asks_the_index_that_has_it() -> None:
    images = load_images(ROOT, {"TRAIN_LOCK": "train-cpu.txt"})
    assert images["train"].arguments["TORCH_BACKEND"] == images["export"].arguments["TORCH_BACKEND"] == "cpu"


def test_the_expansion_image_has_no_torch() -> None:
    assert "torch" not in (ROOT / "images/locks/light.txt").read_text().replace("pytorch", "")


def test_hadolint() -> None:
    program = Path(sys.executable).parent / "hadolint"
    answer = subprocess.run([str(program), "images/Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck")
def test_shellcheck() -> None:
    scripts = [".ci/run", *(str(path) for folder in (".ci", "tools") for path in (ROOT / folder).glob("*.sh"))]
    answer = subprocess.run(["shellcheck", *scripts], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout


def test_the_image_that_announces_does_so_with_its_files_alone(tmp_path: Path) -> None:
    """manifests/components/announce runs `llava announce` in it: as far as the first setting."""
    laid_out(IMAGES["announce"], tmp_path)
    program = (
        "import llava.cli, llava.cli.announcing as a; print(a.__file__); llava.cli.main(['announce', '--root', 'r'])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PATH": "", "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert str(tmp_path) in ran.stdout and "LLAVA_WEBHOOK_URL: expected the URL of a webhook" in ran.stderr, ran.stderr
