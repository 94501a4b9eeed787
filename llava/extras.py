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

# extra -> the modules it brings, by itself, that this package imports
EXTRAS: dict[str, tuple[str, ...]] = {
    "expansion": ("openai", "httpx2", "rensa", "py3langid", "tokenizers", "pyarrow"),
    "train": ("torch", "transformers", "deepspeed", "peft", "safetensors", "sentencepiece", "tokenizers", "pyarrow"),
    "export": ("onnx", "onnxruntime", "onnxscript", "torch", "transformers", "safetensors"),
    "pipeline": ("kfp", "kubernetes", "cronsim", "docker"),
    "serve": ("starlette", "uvicorn"),
    "tracking": ("tensorboard", "mlflow", "wandb"),
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
        extra: that brings them; what it does not bring by itself (torch for `serve`) comes with `train`.
        modules: the ones needed; None: all of the extra's.
    """
    absent = missing(EXTRAS[extra] if modules is None else modules)
    if not absent:
        return None
    verb = "is" if len(absent) == 1 else "are"
    wanted = [name for name in dict.fromkeys((extra, "train")) if set(absent) & set(EXTRAS[name])]
    if set(absent) <= set(EXTRAS[extra]):
        wanted = [extra]
    return f"{what} needs {', '.join(absent)}, which {verb} not installed: {_install(wanted or [extra])}"


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
    return f"{module} is not installed: {_install(bringing[:1])}"


def _install(extras: list[str]) -> str:
    return f"pip install '{DISTRIBUTION}[{','.join(extras)}]'"


def _installed(module: str) -> bool:
    try:
        return module in sys.modules or find_spec(module) is not None
    except (ImportError, ValueError):  # half installed
        return False
