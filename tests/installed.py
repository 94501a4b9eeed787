"""The wheel as it would be published, installed with chosen extras into an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def build_wheel(folder: Path) -> Path:
    """Build the project's wheel into `folder`."""
    _uv("build", "--quiet", "--wheel", "--out-dir", str(folder), str(PROJECT))
    [wheel] = folder.glob("*.whl")
    return wheel


def install(wheel: Path, extras: str, folder: Path) -> Path:
    """Make an environment in `folder` with the wheel and these extras ("train,serve"; "" for none).

    Returns:
        Its folder of programs.
    """
    _uv("venv", "--quiet", "--python", sys.executable, str(folder))
    backend = os.environ.get("TORCH_BACKEND")
    wanted = f"{wheel}[{extras}]" if extras else str(wheel)
    more = ["--torch-backend", backend] if backend else []
    constraints = str(PROJECT / "constraints.txt")
    _uv("pip", "install", "--quiet", "--python", str(folder / "bin/python"), *more, "-c", constraints, wanted)
    return folder / "bin"


def install_alone(wheel: Path, folder: Path) -> Path:
    """As `install`, but what the wheel depends on is this environment's own: nothing of the project's but the wheel."""
    _uv("venv", "--quiet", "--python", sys.executable, str(folder))
    _uv("pip", "install", "--quiet", "--no-deps", "--python", str(folder / "bin/python"), str(wheel))
    [site] = folder.glob("lib/python*/site-packages")
    # Read after `site` itself; .pth files in there, such as an editable install's, are not followed.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def environment(programs: Path) -> dict[str, str]:
    """What a person's shell would hold who has activated it: nothing of this project's own."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**kept, "PATH": f"{programs}:{os.environ['PATH']}", "COLUMNS": "200"}


def _uv(*arguments: str) -> None:
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    links = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS")
    subprocess.run(
        [uv, *arguments],
        env={**os.environ, **({"UV_FIND_LINKS": links} if links else {})},
        check=True,
        stdin=subprocess.DEVNULL,
    )
