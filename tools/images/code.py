"""Which of our files each image holds: exactly what its stages can import, computed from the source.

The images' tags are hashes of their content, and Kubeflow's cache keys name the tags: a file too many in an image
makes a change there run its stages again, which pays a teacher or trains a model once more. `python -m tools.images
code --write` puts the files into the Dockerfile as COPY lines; a test holds them against the source.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from llava.stages.preflight.check import PREFLIGHT_MODULES
from llava.stages.stage import STAGE_MODULES
from tools.images.bake import Image

LIBRARY = "/opt/llava/lib"
# What starts a stage, and what stages start by name: ranks, the nodes of a TrainJob, data packages.
_EVERY_STAGE = ("llava.executor",)
_BY_NAME = {
    "pretrain": ("llava.training.worker", "llava.training.elastic", "llava.multinode.train_node"),
    "finetune": ("llava.training.worker", "llava.training.elastic", "llava.multinode.train_node"),
    "evaluate": ("llava.evaluation.suites",),
}
# Images that run a command beside the pipeline.
_COMMANDS = {"announce": ("llava.cli", "llava.cli.announce")}
# Folders beside the package, for stages that read them.
_RECIPES = {"expand": ("recipes/expansion",), "pretrain": ("recipes/*.yaml",), "finetune": ("recipes/*.yaml",)}

_BEGIN, _END = "# code of {name}: written by `python -m tools.images code --write`", "# end of code"


def code_files(root: Path, image: Image) -> list[str]:
    """Paths below the checkout of the files of ours that an image needs, sorted."""
    roots: set[str] = set(_COMMANDS.get(image.name, ()))
    others: set[str] = set()
    for stage in image.stages:
        roots |= {*_EVERY_STAGE, STAGE_MODULES[stage], PREFLIGHT_MODULES[stage], *_BY_NAME.get(stage, ())}
        for pattern in _RECIPES.get(stage, ()):
            others |= {str(path.relative_to(root)) for match in root.glob(pattern) for path in _files(match)}
    modules = imported(root, roots)
    packages = {root / Path(*module.split(".")) for module in modules}
    # Data of a package stands beside its modules: style sheets, tables.
    data = {path for folder in packages if folder.is_dir() for path in folder.iterdir() if _is_data(path)}
    code = {_module_file(root, module) for module in modules}
    return sorted(others | {str(path.relative_to(root)) for path in code | data})


def imported(root: Path, modules: Iterable[str]) -> set[str]:
    """Modules of ours that these import, however indirectly and late, with the packages they lie in."""
    import grimp  # of import-linter; only who writes or tests the Dockerfile needs it

    graph = grimp.build_graph("llava", cache_dir=None, exclude_type_checking_imports=True)
    found: set[str] = set()
    left = list(modules)
    while left:
        module = left.pop()
        if module not in found:
            found.add(module)
            left += graph.find_modules_directly_imported_by(module)
            if "." in module:
                left.append(module.rpartition(".")[0])
    return found


def copy_lines(root: Path, files: Sequence[str]) -> list[str]:
    """COPY instructions for these files: a folder where all of it is meant, else file by file."""
    lines: list[str] = []

    def folder(path: Path, wanted: list[str]) -> None:
        here = str(path.relative_to(root))
        if wanted == sorted(str(file.relative_to(root)) for file in _files(path)):
            lines.append(f"COPY {here} {LIBRARY}/{here}")
            return
        own = [file for file in wanted if Path(file).parent == Path(here)]
        if own:
            lines.append(_wrapped(["COPY", *own, f"{LIBRARY}/{here}/"]))
        for below in sorted({Path(file).relative_to(here).parts[0] for file in wanted if file not in own}):
            folder(path / below, [file for file in wanted if file.startswith(f"{here}/{below}/")])

    for top in sorted({Path(file).parts[0] for file in files}):
        folder(root / top, [file for file in files if file.startswith(f"{top}/")])
    return lines


def _wrapped(words: Sequence[str]) -> str:
    """A line of a Dockerfile, continued where it becomes long; short lines merge well."""
    return " \\\n    ".join(textwrap.wrap(" ".join(words), 116, break_long_words=False, break_on_hyphens=False))


def with_code(text: str, lines: dict[str, list[str]]) -> str:
    """A Dockerfile with the COPY lines of each image in the place that is marked for them.

    Raises:
        ValueError: an image has no such place.
    """
    for name, copies in lines.items():
        begin = _BEGIN.format(name=name)
        block = re.compile(rf"(?ms)^{re.escape(begin)}\n.*?^{re.escape(_END)}$")
        if not block.search(text):
            raise ValueError(f"images/Dockerfile: no lines {begin!r} ... {_END!r}")
        text = block.sub("\n".join([begin, *copies, _END]).replace("\\", r"\\"), text)
    return text


def _module_file(root: Path, module: str) -> Path:
    path = root / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _files(path: Path) -> list[Path]:
    found = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return [file for file in found if "__pycache__" not in file.parts and file.name != "README.md"]


def _is_data(path: Path) -> bool:
    return path.is_file() and path.suffix not in (".py", ".pyc") and path.name != "README.md"
