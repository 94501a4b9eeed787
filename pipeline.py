"""The pipelines and their command line: compile, run, submit, upload, rerun.

    python pipeline.py compile                     every package into build/pipelines/
    python pipeline.py run --param recipe=tiny ... the full package on this machine
    python pipeline.py submit --host URL ...       the full package on Kubeflow Pipelines
    python pipeline.py clustertest --host URL      whether that Kubeflow keeps what docs/operations.md promises

Every package comes from one factory, `build`: `full`, `from-<stage>`, `only-<stage>`. The stages and how they feed each
other stand in `llava/pipelines/graph.py`, what they ask of a cluster in `llava/pipelines/resources.py`.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Optional

from kfp import dsl

from components import FOLDERS
from components.images import image_of
from llava.pipelines import resources
from llava.pipelines.graph import FLOW, PackagePlan, parameter_name, plan_package
from llava.pipelines.resources import ClusterOptions
from llava.stages.fields import default_of, scalar_type
from llava.stages.stage import Stage, load_stage, uri_parameter

ARTIFACTS = {
    "Dataset": dsl.Dataset,
    "Model": dsl.Model,
    "HTML": dsl.HTML,
    "Metrics": dsl.Metrics,
    "Artifact": dsl.Artifact,
}


def build(name: str, options: ClusterOptions = ClusterOptions(), images: Optional[Mapping[str, str]] = None) -> Any:  # noqa: B008, UP045
    """The pipeline function of a package, ready for kfp's compiler.

    Args:
        name: `full`, `from-<stage>` or `only-<stage>`.
        options: queue, priority and labels, which Kubernetes wants at compile time.
        images: stage -> image reference; without it what `images.lock.json` says.

    Raises:
        SettingsError: no package of this name.
    """
    plan = plan_package(name)
    stages = {stage: load_stage(stage) for stage in plan.stages}
    infrastructure = resources.parameters(plan.stages)
    parameters, described = _signature(plan, stages, infrastructure)
    results = NamedTuple("Results", [(key, ARTIFACTS[kind]) for key, (_, _, kind) in _results(stages).items()])  # type: ignore[misc]

    def pipeline(*channels: Any) -> Any:
        given = dict(zip((parameter.name for parameter in parameters), channels, strict=True))
        made: dict[tuple[str, str], Any] = {}
        for stage in plan.stages:
            settings = {
                setting: given[parameter_name(stage, setting)] for setting in stages[stage].settings.model_fields
            }
            inputs = {}
            for slot, source in FLOW[stage].items():
                if source in made:
                    inputs[slot] = made[source]
                else:  # of an earlier run or of one's own: by URI, which an importer cannot bring from other buckets
                    inputs[uri_parameter(slot)] = given[plan.imports[source]]
            task = _component(stage)(**settings, **inputs)
            image = (images or {}).get(stage) or image_of(stage)
            task.set_container_image(image)
            resources.apply(task, stage, image, given, options)
            made.update({(stage, output): task.outputs[output] for output in stages[stage].outputs.model_fields})
        return results(**{key: made[stage, output] for key, (stage, output, _) in _results(stages).items()})

    # kfp reads the signature and the docstring; both are made from the stages' definitions.
    pipeline.__signature__ = inspect.Signature(parameters, return_annotation=results)  # type: ignore[attr-defined]
    pipeline.__doc__ = f"{_summary(plan)}\n\nArgs:\n" + "".join(
        f"    {key}: {text}\n" for key, text in described.items()
    )
    return dsl.pipeline(name=f"llava-{name}", description=_summary(plan))(pipeline)


def _signature(
    plan: PackagePlan, stages: Mapping[str, Stage], infrastructure: list[resources.Parameter]
) -> tuple[list[inspect.Parameter], dict[str, str]]:
    """The pipeline's parameters, required ones first as Python wants it, and their descriptions."""
    found: dict[str, tuple[Any, Any, str]] = {}
    for (producer, output), parameter in plan.imports.items():
        text = f"URI of {output} as made by {producer}"
        if (producer, output) in plan.optional:
            found[parameter] = (str, "", f"{text}; may be empty")
        else:
            found[parameter] = (str, inspect.Parameter.empty, text)
    for stage, definition in stages.items():
        for setting, info in definition.settings.model_fields.items():
            default = inspect.Parameter.empty if info.is_required() else default_of(info)
            kind = scalar_type(info)
            annotation = Optional[kind] if default is None else kind  # noqa: UP045
            known = found.setdefault(parameter_name(stage, setting), (annotation, default, info.description or ""))
            if known[0] is not annotation:
                raise TypeError(f"{setting}: stages that share it disagree about its type")
            if known[1] is inspect.Parameter.empty or default is inspect.Parameter.empty:
                # Required by one is required by all.
                found[parameter_name(stage, setting)] = (annotation, inspect.Parameter.empty, known[2])
    for asked in infrastructure:
        found[asked.name] = (asked.kind, asked.default, asked.description)
    ordered = sorted(found.items(), key=lambda item: item[1][1] is not inspect.Parameter.empty)
    signature = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation, default=default)
        for name, (annotation, default, _) in ordered
    ]
    return signature, {name: " ".join(text.split()) for name, (_, _, text) in ordered}


def _results(stages: Mapping[str, Stage]) -> dict[str, tuple[str, str, str]]:
    """Pipeline output -> (stage, output, artifact type): everything, reports and metrics under their stage's name."""
    found = {}
    for stage, definition in stages.items():
        for output in definition.outputs.model_fields:
            unique = output not in ("report", "metrics", "checkpoints")
            found[output if unique else f"{stage}_{output}"] = (stage, output, _kind(definition, output))
    return found


def _kind(stage: Stage, output: str) -> str:
    extra = stage.outputs.model_fields[output].json_schema_extra
    assert isinstance(extra, dict), "outputs are declared with stage.output()"
    return str(extra["kfp_type"])


def _component(stage: str) -> Any:
    return getattr(importlib.import_module(f"components.{FOLDERS[stage]}.component"), stage)


def _summary(plan: PackagePlan) -> str:
    if plan.name == "full":
        return "LLaVA: expand captions, align the projector, fine-tune, evaluate, export."
    return f"LLaVA: {', '.join(plan.stages)}, from artifacts of an earlier run."


def small_world(folder: Path) -> Callable[[str], dict[str, Any]]:
    """What the cluster test's runs train on; see `demo.small_world`."""
    from demo.small_world import write_small_world

    return write_small_world(folder)


if __name__ == "__main__":
    from llava.pipelines.commands import main

    sys.exit(main(build, make_world=small_world))
