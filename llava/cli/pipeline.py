"""`llava pipeline run|submit|...`: the commands of `pipeline.py`, wherever one stands and however one installed.

`pipeline.py` and the components it is made of stand at the root of the checkout; a wheel carries them inside.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path

import typer

import llava
from llava.pipelines.commands import make_app


def _app() -> typer.Typer:
    package = Path(llava.__file__).parent
    root = next(folder for folder in (package.parent, package / "_pipeline") if (folder / "pipeline.py").is_file())
    sys.path.insert(0, str(root))
    pipeline = importlib.import_module("pipeline")
    # The cluster test draws its world with the demo's code, which only a checkout has.
    return make_app(pipeline.build, pipeline.small_world if find_spec("demo") else None)


app = _app()
