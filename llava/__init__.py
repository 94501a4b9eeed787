"""LLaVA training as a Kubeflow pipeline: expand, pretrain, finetune, evaluate, export.

What may be imported from here, and stays within a major version: `load` (a trained model, to ask it) and `run_stage`
(any stage, as its command runs it). Everything else of the package may move between releases.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llava.inference.model import Model as Model
    from llava.inference.model import load as load
    from llava.stages.calling import Called as Called

__version__ = "0.1.0"
__all__ = ["Called", "Model", "__version__", "load", "run_stage"]

_HOMES = {"load": "llava.inference.model", "Model": "llava.inference.model", "Called": "llava.stages.calling"}


def run_stage(name: str, **values: Any) -> Called:
    """Run a stage here, as `llava NAME` does.

    Args:
        name: `expand`, `pretrain`, `finetune`, `evaluate` or `export`.
        values: what the command takes as flags, with underscores: settings, inputs, outputs, and `out`, the folder or
            URI below which every output goes.

    Returns:
        `metrics`, the stage's figures, and `places`, the URI of each output.

    Raises:
        llava.errors.UserError: a value is wrong, found before anything is read; or what the stage found.
    """
    stage = importlib.import_module("llava.stages.stage").named_stage(name)
    called: Called = importlib.import_module("llava.stages.calling").call(stage, values)
    return called


def __getattr__(name: str) -> Any:
    """Nothing is imported before it is used: the package must be light where only a command line is built."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
