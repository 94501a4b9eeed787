"""What can be known to be wrong with a run before a pod exists for it.

Kubeflow accepts any parameter; a wrong quantity or an impossible recipe shows hours later, when a pod does not start or
ranks do not agree. These checks need no cluster.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava import storage
from llava.config import Recipe, bundled_recipes, load_recipe
from llava.errors import SettingsError
from llava.multinode.train_on_nodes import read_node_settings
from llava.pipelines.checks.spec import read_spec
from llava.pipelines.resources import NEEDS
from llava.planning.host import Host, host
from llava.planning.published import published_shape

# The API server refuses more, unless its MAX_PARAMETER_BYTES says otherwise (2.17; consts.go).
MAX_PARAMETER_BYTES = 10_000
_CPU = re.compile(r"^([1-9]\d*m|[1-9]\d*|\d+\.\d+)$")
_MEMORY = re.compile(r"^[1-9]\d*(Ki|Mi|Gi|Ti|k|M|G|T)?$")
_UNITS: dict[str, int] = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12} | {
    f"{letter}i": 2 ** (10 * power) for power, letter in enumerate("KMGT", 1)
}
_NAME = re.compile(r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
_EFFECTS = (None, "", "NoSchedule", "PreferNoSchedule", "NoExecute")


def check_run(package: Path, arguments: Mapping[str, Any]) -> list[str]:
    """Every fault of a run's parameters, empty when none can be seen from here.

    Args:
        package: the compiled package.
        arguments: what the user gives; defaults of the package complete them.
    """
    spec = read_spec(package)
    declared = spec["root"]["inputDefinitions"]["parameters"]
    values = {name: definition.get("defaultValue") for name, definition in declared.items()} | dict(arguments)
    faults: list[str] = []
    for name, value in values.items():
        if name.endswith("_accelerators") and not re.fullmatch(r"\d+", str(value)):
            faults.append(f'{name}: found {value!r}; expected a whole number as text, "0" for CPU')
        if name.endswith("_cpu") and not _CPU.match(str(value)):
            faults.append(f'{name}: found {value!r}; expected CPUs such as "8" or "500m"')
        if name.endswith("_memory") and not _MEMORY.match(str(value)):
            faults.append(f'{name}: found {value!r}; expected a size such as "64Gi"')
        if name.endswith(("_secret", "_config")) and not _NAME.match(str(value)):
            faults.append(
                f"{name}: found {value!r}; expected the name of a Kubernetes object (it may be absent, not empty)"
            )
    for toleration in values.get("accelerator_tolerations") or []:
        if not isinstance(toleration, Mapping) or toleration.get("effect") not in _EFFECTS:
            faults.append(
                f"accelerator_tolerations: found {toleration!r}; expected e.g. "
                '{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}'
            )
    size = len(json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_PARAMETER_BYTES:
        faults.append(
            f"all parameters take {size} bytes; Kubeflow takes at most {MAX_PARAMETER_BYTES} "
            "(or what MAX_PARAMETER_BYTES of its API server says); put the recipe in a file"
        )
    for stage in ("pretrain", "finetune"):
        if f"{stage}_overrides" in values:
            faults += _check_recipe(stage, values)
    return faults


def require_sound(package: Path, arguments: Mapping[str, Any]) -> None:
    """Raise what `check_run` finds.

    Raises:
        SettingsError: naming every fault.
    """
    faults = check_run(package, arguments)
    if faults:
        raise SettingsError("\n".join(f"pipeline parameter {fault}" for fault in faults))


def _check_recipe(stage: str, values: Mapping[str, Any]) -> list[str]:
    name = str(values["recipe"])
    readable = name in bundled_recipes() or storage.is_remote(name) or Path(name).is_file()
    if not readable and "/" in name:
        return []  # a path inside the image or on a volume: only the pod can tell
    try:
        recipe = load_recipe(name, values[f"{stage}_overrides"] or None)
    except SettingsError as error:
        return [f"recipe: {error}"]
    return _check_ranks(stage, recipe, values)


def _check_ranks(stage: str, recipe: Recipe, values: Mapping[str, Any]) -> list[str]:
    train = recipe.pretrain if stage == "pretrain" else recipe.finetune
    processes = str(values.get("processes", "auto"))
    if processes != "auto" and not re.fullmatch(r"[1-9]\d*", processes):
        return [f'processes: found {processes!r}; expected "auto" or a number']
    own = int(values["train_accelerators"]) if str(values["train_accelerators"]).isdigit() else 0
    faults = []
    volumes = NEEDS[stage]
    given = {"train_memory": values.get("train_memory", ""), "scratch": volumes.scratch, "shm": volumes.shm}
    if train.nodes > 1:
        try:
            node = read_node_settings(str(values.get("train_job", "")))
        except SettingsError as error:
            return [str(error)]
        accelerators, where = node.accelerators, "train_job.accelerators"
        given = {"train_job.memory": node.memory, "train_job.scratch": node.scratch, "train_job.shm": node.shm}
        if own:
            faults.append(
                f"train_accelerators: found {own}; with {stage}.nodes {train.nodes} the nodes of the TrainJob hold the "
                'accelerators and this pod only follows it; expected "0", and train_job {"accelerators": ...}'
            )
    else:
        accelerators, where = own, "train_accelerators"
    local = max(accelerators, 1) if processes == "auto" else int(processes)
    if accelerators and local > accelerators:
        faults.append(f"processes: {local} a node, but {where} is {accelerators}; expected at most one each")
    if train.global_batch_size < train.nodes * local:
        faults.append(
            f"recipe {recipe.name}: {stage}.global_batch_size is {train.global_batch_size}, fewer rows than the "
            f"{train.nodes * local} ranks of {train.nodes} nodes with {local} processes each"
        )
    if train.lora and train.lora.quantize_4bit and accelerators == 0:
        faults.append(f"recipe {recipe.name}: {stage}.lora.quantize_4bit needs a GPU, but {where} is 0")
    if train.kernels == "liger" and accelerators == 0:
        faults.append(f"recipe {recipe.name}: {stage}.kernels liger needs a GPU, but {where} is 0; expected torch")
    return faults + _check_host(stage, recipe, values, local, given)


def _check_host(
    stage: str, recipe: Recipe, values: Mapping[str, Any], local: int, given: Mapping[str, Any]
) -> list[str]:
    """Whether a node holds what `llava plan` says of it; for models whose sizes are known without a download."""
    parts = {name: values[name] for name in ("vision_tower", "language_model") if values.get(name)}
    shape = published_shape(recipe.model.model_copy(update=parts))
    if shape is None:
        return []
    train = recipe.pretrain if stage == "pretrain" else recipe.finetune
    need: Host = host(
        shape, "pretrain" if stage == "pretrain" else "finetune", train, gpus=train.nodes * local, per_node=local
    )
    faults = []
    for (where, quantity), (what, least, asked) in zip(
        given.items(),
        (
            ("host memory", need.least_memory, need.memory),
            ("scratch space", need.scratch, need.scratch),
            ("/dev/shm", need.shm, need.shm),
        ),
        strict=True,
    ):
        if _MEMORY.match(str(quantity)) and _bytes(str(quantity)) < least:
            faults.append(
                f"{where}: found {quantity!r}; {stage} of recipe {recipe.name} on {local} ranks a node needs "
                f'{math.ceil(least / 2**30)} GiB of {what}; expected at least "{math.ceil(asked / 2**30)}Gi" '
                "(`llava plan` shows the parts)"
            )
    return faults


def _bytes(quantity: str) -> int:
    number = quantity.rstrip("kKMGTi")
    return int(number) * _UNITS[quantity[len(number) :]]
