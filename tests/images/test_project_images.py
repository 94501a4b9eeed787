"""The project's own images: each holds every module of ours that its stages can reach, and little else."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from llava.stages.stage import STAGE_MODULES
from tools.images.bake import load_images
from tools.images.content import content_hash, image_files

ROOT = Path(__file__).parents[2]
IMAGES = load_images(ROOT, {})


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("llava", cache_dir=None, exclude_type_checking_imports=True)


def file_of(module: str) -> str:
    path = Path(*module.split("."))
    return str(path / "__init__.py") if (ROOT / path).is_dir() else f"{path}.py"


@pytest.mark.parametrize("stage", sorted(STAGE_MODULES))
def test_an_image_holds_all_that_its_stages_import_even_late(stage: str, graph: grimp.ImportGraph) -> None:
    image = next(image for image in IMAGES.values() if stage in image.stages)
    files = set(image_files(ROOT, image))
    # The executor finds stages by name; imports inside functions are in the graph too.
    graph = copy.deepcopy(graph)
    # The check before a stage imports, inside functions, what its own stage needs: `check.py` chooses by name.
    own = {"expand": "expand", "pretrain": "train", "finetune": "train", "evaluate": "evaluate", "export": "evaluate"}
    for other in {"expand", "train", "evaluate"} - {own[stage]}:
        graph.remove_module(f"llava.stages.preflight.{other}")
    # The checks of evaluation and export stand in one file, each with its imports inside its function.
    foreign = "llava.evaluation" if stage == "export" else "llava.export"
    check = "llava.stages.preflight.evaluate"
    for module in graph.find_modules_directly_imported_by(check) if check in graph.modules else ():
        if module.startswith(foreign):
            graph.remove_import(importer=check, imported=module)
    needed = {"llava.executor", STAGE_MODULES[stage]}
    for module in list(needed):
        needed |= graph.find_upstream_modules(module)
    assert {module for module in needed if file_of(module) not in files} == set()


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
        ("components/data_expansion/component.py", {"light"}),
        ("components/finetune/component.py", {"train"}),
        ("components/export_onnx/component.py", {"export"}),
        ("llava/storage/__init__.py", {"light", "train", "export"}),
        ("llava/training/loop.py", {"train"}),
        ("llava/expansion/asking/ledger.py", {"light"}),
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

    constraints = pins(ROOT / "constraints.txt")
    for lock in (ROOT / "images" / "locks").glob("*.txt"):
        for name, version in pins(lock).items():
            if name in constraints:
                assert version.partition("+")[0] == constraints[name], f"{lock.name}: {name}; run tools/lock_images.sh"


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


def test_the_light_image_can_announce_the_end_of_runs(tmp_path: Path) -> None:
    """manifests/components/announce runs `llava announce` in it: on its files alone, as far as the first setting."""
    for name in image_files(ROOT, IMAGES["light"]):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    program = (
        "import llava.cli, llava.cli.announcing as a; print(a.__file__); llava.cli.main(['announce', '--root', 'r'])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PATH": "", "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert str(tmp_path) in ran.stdout and "LLAVA_WEBHOOK_URL: expected the URL of a webhook" in ran.stderr, ran.stderr
