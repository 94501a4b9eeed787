"""Which extra of the distribution brings which library, and one line for whoever lacks it.

The distribution installs light; torch, kfp, onnx and their like come with extras. What is missing is said before work
is done or money spent, by the name of the extra that brings it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.util import find_spec

from llava.errors import SettingsError

DISTRIBUTION = "llava-pipelines"

# extra -> the modules it brings that this package imports
EXTRAS: dict[str, tuple[str, ...]] = {
    "expansion": ("openai", "rensa", "tokenizers"),
    "train": ("torch", "transformers", "deepspeed", "peft", "safetensors", "sentencepiece", "tokenizers"),
    "export": ("onnx", "onnxruntime", "onnxscript", "torch", "transformers", "safetensors"),
    "pipeline": ("kfp", "kubernetes", "cronsim", "docker"),
    "serve": ("starlette", "uvicorn", "torch", "transformers"),
    "tracking": ("tensorboard", "mlflow", "wandb"),
    "tables": ("pyarrow",),
    "gguf": ("gguf",),
    "registry": ("model_registry",),
    "qlora": ("bitsandbytes",),
    "liger": ("liger_kernel",),
}


def missing(modules: Iterable[str]) -> list[str]:
    """Those of the modules that are not installed; nothing is imported."""
    return [name for name in modules if not _installed(name)]


def fault(what: str, extra: str, modules: Iterable[str] | None = None) -> str | None:
    """What to say when `what` lacks libraries of an extra; None when all are there.

    Args:
        what: who needs them (`llava export`, `teacher openai`).
        extra: that brings them.
        modules: the ones needed; None: all of the extra's.
    """
    absent = missing(EXTRAS[extra] if modules is None else modules)
    if not absent:
        return None
    verb = "is" if len(absent) == 1 else "are"
    return f"{what} needs {', '.join(absent)}, which {verb} not installed: pip install '{DISTRIBUTION}[{extra}]'"


def require(what: str, extra: str, modules: Iterable[str] | None = None) -> None:
    """Raise what `fault` says.

    Raises:
        SettingsError: a library is missing.
    """
    found = fault(what, extra, modules)
    if found:
        raise SettingsError(found)


def explain(error: ModuleNotFoundError) -> str | None:
    """One line for a library that turned out to be missing; None when it is none of an extra's: then it is a bug."""
    module = (error.name or "").partition(".")[0]
    bringing = [extra for extra, modules in EXTRAS.items() if module in modules]
    if not bringing or _installed(module):
        return None
    return f"{module} is not installed: pip install '{DISTRIBUTION}[{bringing[0]}]'"


def _installed(module: str) -> bool:
    try:
        return module in sys.modules or find_spec(module) is not None
    except (ImportError, ValueError):  # half installed
        return False
