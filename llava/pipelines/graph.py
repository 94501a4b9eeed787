"""Which stage feeds which, which packages exist, and what their parameters are called.

A package is a run of stages; what it needs from stages it leaves out comes in by URI. `full` runs all,
`from-<stage>` that stage and the later ones, `only-<stage>` that one.
"""

from __future__ import annotations

from dataclasses import dataclass

from llava.errors import SettingsError
from llava.stages.stage import load_stage

STAGES = ("expand", "pretrain", "finetune", "evaluate", "export")

# stage -> its input -> (stage, output) it comes from
FLOW: dict[str, dict[str, tuple[str, str]]] = {
    "expand": {},
    "pretrain": {"data": ("expand", "pretrain_data")},
    "finetune": {"data": ("expand", "instruct_data"), "projector": ("pretrain", "projector")},
    "evaluate": {"model": ("finetune", "model"), "projector": ("pretrain", "projector")},
    "export": {"model": ("finetune", "model")},
}

# Settings that several stages have and that must agree between them: one pipeline parameter each. Overrides are not
# among them: a change to one stage's would run the others again.
SHARED: dict[str, tuple[str, ...]] = {
    "images_uri": ("expand", "pretrain", "finetune"),
    "recipe": ("pretrain", "finetune"),
    "vision_tower": ("pretrain", "finetune"),
    "language_model": ("pretrain", "finetune"),
    "processes": ("pretrain", "finetune"),
    "threads_per_process": ("pretrain", "finetune"),
    "train_job": ("pretrain", "finetune"),
}


@dataclass(frozen=True)
class PackagePlan:
    """One package: its stages in order, and the artifacts it imports.

    Attributes:
        name: `full`, `from-<stage>`, `only-<stage>`.
        stages: in the order of the flow.
        imports: (producer, output) -> name of the parameter that takes its URI.
        optional: those of the imports that every stage here can do without.
    """

    name: str
    stages: tuple[str, ...]
    imports: dict[tuple[str, str], str]
    optional: frozenset[tuple[str, str]] = frozenset()


def parameter_name(stage: str, setting: str) -> str:
    """What a stage's setting is called as a pipeline parameter: its own name when shared, else `<stage>_<setting>`."""
    return setting if stage in SHARED.get(setting, ()) else f"{stage}_{setting}"


def package_names() -> list[str]:
    """Every package: the whole, the later parts, the single stages."""
    later = [f"from-{stage}" for stage in STAGES[1:-1]]
    return ["full", *later, *(f"only-{stage}" for stage in STAGES)]


def plan_package(name: str) -> PackagePlan:
    """The plan of a package.

    Raises:
        SettingsError: no package of this name.
    """
    if name not in package_names():
        raise SettingsError(f"package: found {name!r}; expected one of {', '.join(package_names())}")
    kind, _, stage = name.partition("-")
    stages: tuple[str, ...]
    if kind == "full":
        stages = STAGES
    elif kind == "from":
        stages = STAGES[STAGES.index(stage) :]
    else:
        stages = (stage,)
    sources = {
        (consumer, slot): source
        for consumer in stages
        for slot, source in FLOW[consumer].items()
        if source[0] not in stages
    }
    needed = {source for (consumer, slot), source in sources.items() if _is_needed(consumer, slot)}
    imports = {source: f"{source[1]}_uri" for source in dict.fromkeys(sources.values())}
    return PackagePlan(name, stages, imports, frozenset(imports.keys() - needed))


def _is_needed(stage: str, slot: str) -> bool:
    return load_stage(stage).inputs.model_fields[slot].is_required()
