"""The pipelines and their command line: compile, run, submit, upload, rerun.

    python pipeline.py compile                     every package into build/pipelines/
    python pipeline.py run --param recipe=tiny ... the full package on this machine
    python pipeline.py submit --host URL ...       the full package on Kubeflow Pipelines
    python pipeline.py clustertest --host URL      whether that Kubeflow keeps what docs/operations.md promises

Every package comes from one factory, `build`: `full`, `from-<stage>`, `only-<stage>`. The stages and how they feed each
other stand in `llava/pipelines/graph.py`, what they ask of a cluster in `llava/pipelines/resources.py`.
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Optional

if __name__ == "__main__" and importlib.util.find_spec("typer") is None:
    print(f"pipeline: {sys.executable} has none of the project's libraries: `make install`, then "
          "`source .venv/bin/activate` (or `.venv/bin/python pipeline.py ...`)", file=sys.stderr)  # fmt: skip
    sys.exit(2)

from components import FOLDERS
from components.images import image_of
from llava.pipelines import resources
from llava.pipelines.graph import FLOW, PackagePlan, parameter_name, plan_package
from llava.pipelines.parameters import declared_of
from llava.pipelines.resources import ClusterOptions
from llava.stages.stage import Stage, load_stage, uri_parameter


def build(name: str, options: ClusterOptions = ClusterOptions(), images: Optional[Mapping[str, str]] = None) -> Any:  # noqa: B008, UP045
    """The pipeline function of a package, ready for kfp's compiler.

    Args:
        name: `full`, `from-<stage>` or `only-<stage>`.
        options: queue, priority and labels, which Kubernetes wants at compile time.
        images: stage -> image reference; without it what `images.lock.json` says.

    Raises:
        SettingsError: no package of this name.
    """
    from kfp import dsl  # two seconds, which a wrong parameter need not wait for

    plan = plan_package(name)
    stages = {stage: load_stage(stage) for stage in plan.stages}
    declared = declared_of(plan)
    parameters = [
        inspect.Parameter(
            one.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=one.annotation, default=one.default
        )
        for one in declared
    ]
    results = NamedTuple("Results", [(key, getattr(dsl, kind)) for key, (_, _, kind) in _results(stages).items()])  # type: ignore[misc]

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
        f"    {one.name}: {' '.join(one.description.split())}\n" for one in declared
    )
    return dsl.pipeline(name=f"llava-{name}", description=_summary(plan))(pipeline)


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
