"""Options that several commands of `pipeline.py` share, and how their texts are read."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from llava import storage
from llava.errors import SettingsError
from llava.parsing import Malformed, parse_json
from llava.pipelines.checks.spec import read_spec
from llava.pipelines.graph import STAGES

Build = Callable[..., Any]

ParamOption = Annotated[
    list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="A pipeline parameter; repeat")
]
FileOption = Annotated[
    str | None,
    typer.Option(
        "--params",
        metavar="FILE",
        help="YAML or JSON file of pipeline parameters (path or URI); `parameters` writes one",
    ),
]
PackageOption = Annotated[
    str, typer.Option("--package", help="full, from-<stage> or only-<stage>; stages: " + ", ".join(STAGES))
]
FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="STAGE", help=f"This stage and those after it: {', '.join(STAGES[1:-1])}"),
]
OnlyOption = Annotated[
    str | None, typer.Option("--only", metavar="STAGE", help=f"This stage alone: {', '.join(STAGES)}")
]
LockOption = Annotated[
    Path | None, typer.Option("--images", help="Lock file of images", show_default="images.lock.json")
]
PinnedOption = Annotated[bool, typer.Option("--require-pinned", help="Fail when an image is not pinned by digest")]
LabelOption = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A pod label, for cost reports; repeat")
]
QueueOption = Annotated[str, typer.Option("--queue", help="Kueue LocalQueue the pods wait in; without it, none")]
PriorityOption = Annotated[str, typer.Option("--priority", help="Kueue priority class, with --queue")]

HubCacheOption = Annotated[
    str,
    typer.Option(
        "--hub-cache",
        metavar="CLAIM",
        help="PersistentVolumeClaim (ReadWriteMany) that keeps base models from the hub between pods: llava-hub-cache",
    ),
]
HostOption = Annotated[
    str | None,
    typer.Option("--host", help="URL of the Kubeflow Pipelines API", show_default="KF_PIPELINES_ENDPOINT"),
]
NamespaceOption = Annotated[
    str, typer.Option("--namespace", help="Namespace of the run's pods: in a multi-user installation your profile's")
]
ExperimentOption = Annotated[str, typer.Option("--experiment", help="Experiment the run belongs to")]
NameOption = Annotated[str | None, typer.Option("--name", help="Name of the run", show_default="package and time")]
ACCOUNT = "llava-runner"  # what the overlays in manifests/ make, and docs/operations.md asks for
AccountOption = Annotated[
    str, typer.Option("--service-account", help="Service account of the run's pods; empty: Kubeflow's default")
]
UnpinnedOption = Annotated[
    bool,
    typer.Option(
        "--allow-unpinned",
        envvar="LLAVA_ALLOW_UNPINNED",
        help="Submit images that no digest pins (a development cluster)",
    ),
]
CacheOption = Annotated[bool, typer.Option("--cache/--no-cache", help="Use results of earlier runs")]
ClusterCheck = Literal["refuse", "warn", "off"]
ClusterCheckOption = Annotated[
    ClusterCheck,
    typer.Option(
        "--cluster-check",
        help="When a Secret is missing or no node can hold a pod: refuse, or warn and continue; off: ask no cluster",
    ),
]
ContextOption = Annotated[
    str | None, typer.Option("--context", help="kubeconfig context of that cluster", show_default="the current one")
]


def package_of(from_stage: str | None, only_stage: str | None) -> str | None:
    """The package that `--from` or `--only` means; None when neither is given.

    Raises:
        SettingsError: both are given, or there is no such package.
    """
    if from_stage is not None and only_stage is not None:
        raise SettingsError("--from and --only exclude each other")
    if only_stage is not None:
        if only_stage not in STAGES:
            raise SettingsError(f"--only: found {only_stage!r}; expected one of {', '.join(STAGES)}")
        return f"only-{only_stage}"
    if from_stage is not None:
        later = STAGES[1:-1]
        if from_stage not in later:
            hint = {STAGES[0]: "; from there it is the package full", STAGES[-1]: f"; that is --only {STAGES[-1]}"}
            found = f"--from: found {from_stage!r}; expected one of {', '.join(later)}"
            raise SettingsError(found + hint.get(from_stage, ""))
        return f"from-{from_stage}"
    return None


def read_parameters(file: str | None, given: list[str] | None) -> dict[str, Any]:
    """Parameters from a file, and over them those of the command line; one without a value is as if it were not there.

    Raises:
        SettingsError: the file is no mapping, or a pair has no `=`.
    """
    values: dict[str, Any] = {}
    if file:
        read = storage.read_yaml(file)
        if not isinstance(read, dict):
            raise SettingsError(f"{file}: found {type(read).__name__}; expected a mapping of parameters")
        values.update({name: value for name, value in read.items() if value is not None})
    values.update(pairs(given, "--param"))
    return values


def parameter_file(package: Path) -> str:
    """Every parameter of a compiled package as YAML: its description above it, its default beside it.

    What is required comes first and has no value yet; what has none by default stays out until it is filled in.
    """
    spec = read_spec(package)
    declared = spec["root"]["inputDefinitions"]["parameters"]
    required = {name for name, known in declared.items() if not known.get("isOptional") and "defaultValue" not in known}
    lines = [f"# Parameters of {spec['pipelineInfo']['name']}; what keeps its default may be left out."]
    for name in sorted(declared, key=lambda name: (name not in required, name)):
        text = ("Required. " if name in required else "") + declared[name].get("description", "")
        default = declared[name].get("defaultValue")
        if declared[name]["parameterType"] == "NUMBER_INTEGER" and default is not None:
            default = int(default)  # the package's numbers are all floats
        lines += ["", *textwrap.wrap(text, 100, initial_indent="# ", subsequent_indent="# ")]
        lines.append(f"{name}:" if default is None else f"{name}: {json.dumps(default, ensure_ascii=False)}")
    return "\n".join(lines)


def pairs(given: list[str] | None, flag: str) -> Mapping[str, str]:
    """`NAME=VALUE` texts as a mapping.

    Raises:
        SettingsError: one has no `=` or no name.
    """
    found = {}
    for pair in given or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise SettingsError(f"{flag}: found {pair!r}; expected NAME=VALUE")
        found[name] = value
    return found


def json_object(text: str, flag: str) -> dict[str, Any]:
    """A JSON object given as text.

    Raises:
        SettingsError: it is not JSON, or another kind of it.
    """
    try:
        value = parse_json(text)
    except Malformed as error:
        raise SettingsError(f"{flag}: {error}: {text!r}") from error
    if not isinstance(value, dict):
        raise SettingsError(f"{flag}: found {text!r}; expected a JSON object")
    return value
