"""The parameters of a package, from the stages' definitions: names, types, defaults and descriptions, without kfp.

`pipeline.build` makes the pipeline's signature of them; the commands check what they were given against them, and fill
each stage's settings from them, before anything is compiled.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from llava.errors import SettingsError
from llava.pipelines import resources
from llava.pipelines.graph import FLOW, PackagePlan, parameter_name, plan_package
from llava.pipelines.values import check_arguments
from llava.stages.fields import default_of, scalar_type
from llava.stages.preflight.check import faults_of
from llava.stages.stage import load_stage
from llava.validation import validate

# As kfp's compiler writes them.
_KINDS = {
    str: "STRING",
    int: "NUMBER_INTEGER",
    float: "NUMBER_DOUBLE",
    bool: "BOOLEAN",
    list: "LIST",
    dict: "STRUCT",
}
REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Declared:
    """One parameter of a package.

    Attributes:
        kind: its Python type.
        optional: None is its default.
        default: `REQUIRED` where there is none.
    """

    name: str
    kind: type
    optional: bool
    default: Any
    description: str

    @property
    def annotation(self) -> Any:
        """As it stands in the pipeline's signature."""
        return Optional[self.kind] if self.optional else self.kind  # noqa: UP045  (kfp reads annotations)


def declared_of(plan: PackagePlan) -> list[Declared]:
    """Every parameter of a package, required ones first as Python wants it.

    Raises:
        TypeError: stages that share a setting disagree about its type.
    """
    found: dict[str, Declared] = {}
    for (producer, output), parameter in plan.imports.items():
        text = f"URI of {output} as made by {producer}"
        optional = (producer, output) in plan.optional
        found[parameter] = Declared(
            parameter, str, False, "" if optional else REQUIRED, f"{text}; may be empty" if optional else text
        )
    for stage in plan.stages:
        for setting, info in load_stage(stage).settings.model_fields.items():
            name = parameter_name(stage, setting)
            default = REQUIRED if info.is_required() else default_of(info)
            own = Declared(name, scalar_type(info), default is None, default, info.description or "")
            known = found.setdefault(name, own)
            if known.annotation is not own.annotation:
                raise TypeError(f"{setting}: stages that share it disagree about its type")
            if REQUIRED in (known.default, default):  # required by one is required by all
                found[name] = Declared(name, known.kind, known.optional, REQUIRED, known.description)
    for asked in resources.parameters(plan.stages):
        found[asked.name] = Declared(asked.name, asked.kind, False, asked.default, asked.description)
    return sorted(found.values(), key=lambda one: one.default is not REQUIRED)


def typed(package: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a package in its types, before it is compiled.

    Raises:
        SettingsError: no such package, or naming every unknown, missing or unreadable argument.
    """
    parameters = {
        one.name: {"parameterType": _KINDS[one.kind], "description": one.description}
        | ({} if one.default in (REQUIRED, None) else {"defaultValue": one.default})
        | ({} if one.default is REQUIRED else {"isOptional": True})
        for one in declared_of(plan_package(package))
    }
    return check_arguments({"root": {"inputDefinitions": {"parameters": parameters}}}, arguments)


def require_sound_run(package: str, arguments: Mapping[str, Any], *, here: bool) -> dict[str, Any]:
    """Arguments in the package's types, after the preflight of each of its stages.

    Args:
        package: its name.
        arguments: as given; the package's defaults complete them.
        here: the stages run on this machine, so files, keys, libraries and memory are looked at as well.

    Raises:
        SettingsError: a line for each fault.
    """
    values = typed(package, arguments)
    plan = plan_package(package)
    faults: list[str] = []
    for stage in plan.stages:
        definition = load_stage(stage)
        given = {
            setting: values[parameter_name(stage, setting)]
            for setting in definition.settings.model_fields
            if parameter_name(stage, setting) in values
        }
        try:
            settings = validate(definition.settings, given, f"{stage} settings")
        except SettingsError as error:
            faults += str(error).splitlines()
            continue
        inputs = {
            slot: values.get(plan.imports[source]) for slot, source in FLOW[stage].items() if source in plan.imports
        }
        faults += [f"{stage}: {fault}" for fault in faults_of(stage, settings, inputs, here=here)]
    if faults:
        raise SettingsError("\n".join(_without_repeats(faults)))
    return values


def _without_repeats(faults: list[str]) -> list[str]:
    """A fault that both training stages have is said once."""
    seen: dict[str, str] = {}
    for fault in faults:
        seen.setdefault(fault.partition(": ")[2], fault)
    return list(seen.values())
