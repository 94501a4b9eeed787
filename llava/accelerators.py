"""Accelerators that were asked for must be there: a pod with a GPU limit whose torch sees none would train on its CPU.

Asked before anything is read, in a process of its own, so that no driver state stays behind in the one that asks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.errors import SettingsError

ASKED = "LLAVA_ACCELERATORS"
_CODE = """
import json, torch
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
build = torch.version.cuda or torch.version.hip or ""
print(json.dumps({"names": names, "build": build, "torch": torch.__version__}))
"""
_PATIENCE_S = 300.0


@dataclass(frozen=True)
class Seen:
    """What torch sees.

    Attributes:
        names: of each device.
        build: the CUDA or ROCm version that torch was built for; empty for a build for CPUs.
        torch: torch's version.
    """

    names: tuple[str, ...]
    build: str
    torch: str


def asked_of_the_pod(values: Mapping[str, Any]) -> int:
    """Accelerators that a task's pod has as its limit, from the parameters that Kubeflow hands its container.

    Args:
        values: `inputs.parameterValues` of an executor input; the pipeline parameter that the limit comes from
            (`pipelinechannel--train_accelerators`) stands among them.
    """
    for name, value in values.items():
        if name == "accelerator_count" or (name.startswith("pipelinechannel--") and name.endswith("_accelerators")):
            text = str(value).removesuffix(".0")
            if text.isdigit():
                return int(text)
    return 0


def look() -> Seen:
    """Ask torch, in another process.

    Raises:
        SettingsError: it cannot be asked; the message holds its last line.
    """
    done = subprocess.run(
        [sys.executable, "-c", _CODE], capture_output=True, text=True, timeout=_PATIENCE_S, check=False
    )
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise SettingsError(f"accelerators: torch cannot say what it sees: {last}") from None
    return Seen(tuple(found["names"]), str(found["build"]), str(found["torch"]))


def require(asked: int, seen: Seen | None = None) -> None:
    """See that what was asked for is there, and say what it is.

    Args:
        asked: devices of this pod or node; 0 asks nothing.
        seen: what torch sees; None: it is asked.

    Raises:
        SettingsError: fewer are seen; the message says where to look.
    """
    if not asked:
        return
    seen = seen or look()
    if len(seen.names) >= asked:
        print(f"devices   {len(seen.names)} x {seen.names[0]} (torch {seen.torch})", file=sys.stderr, flush=True)
        return
    if not seen.build:
        why = f"torch {seen.torch} in this image is built for CPUs; take an image built with images/locks/train.txt"
    elif not list(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/kfd").exists():
        why = (
            "this container has no device; look at the device plugin (kubectl describe node: is the resource "
            "allocatable?), at the runtime class of GPU pods, and at the limit in kubectl get pod -o yaml"
        )
    else:
        why = (
            f"the devices are here, but torch (built for {seen.build}) cannot use them; look at nvidia-smi in the pod "
            "and at the driver's version on the node, which must not be older than that"
        )
    raise SettingsError(
        f"accelerators: {asked} asked for, torch sees {len(seen.names)}: {why}; 0 would train on the CPU"
    )


def memory_limit_bytes() -> int | None:
    """Memory this container may use, by its control group; None where none is set."""
    for place in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(place).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 2**60:
            return int(text)
    return None


def machine() -> str:
    """CPUs and memory of this container, in a few words."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit = memory_limit_bytes()
    memory = f"{limit / 2**30:.1f} GiB memory" if limit else "no memory limit"
    return f"{cpus} CPUs, {memory}"
