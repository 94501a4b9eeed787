"""Write the components from the stages' definitions: `python -m components.sync`, and `--check` to see whether due.

A component's signature stands in its file, because that is where people and Kubeflow look for it; but names, types,
defaults and descriptions are decided in `llava/stages/`. This keeps the two the same, and a test keeps this run.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from components import FOLDERS
from llava.stages.fields import default_of, scalar_type
from llava.stages.stage import Stage, load_stage, uri_parameter

ROOT = Path(__file__).parent
TABLES = ("<!-- tables: begin, written by components.sync -->", "<!-- tables: end -->")
LAST_VERIFIED = "2026-11-26T00:00:00Z"  # when the five last ran together; pipelines-components wants it within a year


def component_source(stage: Stage) -> str:
    """The text of `component.py`."""
    required, optional, described = [], [], []
    for name, info in stage.settings.model_fields.items():
        kind = scalar_type(info).__name__
        described.append((name, info.description))
        if info.is_required():
            required.append(f"{name}: {kind}")
        elif default_of(info) is None:
            optional.append(f"{name}: Optional[{kind}] = None")
        else:
            optional.append(f"{name}: {kind} = {_literal(default_of(info))}")
    for name, info in stage.inputs.model_fields.items():
        described.append((name, info.description))
        optional.append(f"{name}: Optional[dsl.Input[dsl.{input_type(stage, name)}]] = None")
        # What an importer brings from another bucket the launcher cannot fetch (kfp 2.17); our own storage can.
        described.append((uri_parameter(name), f"{name} by URI, from any bucket, instead of as an artifact"))
        optional.append(f'{uri_parameter(name)}: str = ""')
    for name, info in stage.outputs.model_fields.items():
        described.append((name, info.description))
        required.append(f"{name}: dsl.Output[dsl.{_extra(info)['kfp_type']}]")
    parameters = "".join(f"    {line},\n" for line in (*required, *optional))
    lines = "".join(_argument_doc(name, text or "") for name, text in described)
    typing = "# ruff: noqa: UP045\nfrom typing import Optional\n\n" if "Optional[" in parameters else ""
    # kfp reads annotations, not their text: no `from __future__ import annotations`, and Optional where kfp wants it.
    return f'''"""The Kubeflow component of the {stage.name} stage.

Written from `llava/stages/{stage.name}.py` by `python -m components.sync`: change it there.
"""

{typing}from kfp import dsl

from components.images import image_of


@dsl.container_component
def {stage.name}(
{parameters}) -> dsl.ContainerSpec:
    """{stage.summary}

    Args:
{lines}    """
    return dsl.ContainerSpec(
        image=image_of("{stage.name}"),
        # The stage's name makes the container spec unlike every other one: the backend merges equal ones.
        command=["python", "-m", "llava.executor", "{stage.name}"],
        args=["--executor-input", "{{{{$}}}}"],
    )
'''


def input_type(stage: Stage, name: str) -> str:
    """The artifact type of an input: that of the output it comes from."""
    from llava.pipelines.graph import FLOW

    producer, output = FLOW[stage.name][name]
    return str(_extra(load_stage(producer).outputs.model_fields[output])["kfp_type"])


def metadata_source(stage: Stage) -> str:
    """The text of `metadata.yaml`: what kubeflow/pipelines-components validates, in its order, and nothing else."""
    data = {
        "name": FOLDERS[stage.name],
        "stability": "beta",
        "dependencies": {"kubeflow": [{"name": "Pipelines", "version": ">=2.15.0"}]},
    }
    tags = {"tags": ["llava", "multimodal", stage.name]}
    # A date that YAML reads as one, which PyYAML would write in another form.
    return f"{yaml.safe_dump(data, sort_keys=False)}lastVerified: {LAST_VERIFIED}\n{yaml.safe_dump(tags)}"


def tables(stage: Stage) -> str:
    """The tables of a component's README."""
    rows = ["| setting | type | default | |", "|---|---|---|---|"]
    for name, info in stage.settings.model_fields.items():
        default = "required" if info.is_required() else f"`{_literal(default_of(info))}`"
        rows.append(f"| `{name}` | {scalar_type(info).__name__} | {default} | {_cell(info.description)} |")
    rows += ["", "| artifact | | type | |", "|---|---|---|---|"]
    for name, info in stage.inputs.model_fields.items():
        rows.append(
            f"| `{name}` or `{uri_parameter(name)}` | {'in' if info.is_required() else 'in, optional'} "
            f"| {input_type(stage, name)}, or text | {_cell(info.description)} |"
        )
    for name, info in stage.outputs.model_fields.items():
        rows.append(f"| `{name}` | out | {_extra(info)['kfp_type']} | {_cell(info.description)} |")
    return "\n".join([TABLES[0], "", *rows, "", TABLES[1]])


def wanted_files(stage: Stage) -> dict[Path, str]:
    """Path -> text of everything that is written for a stage; a README is only touched between its marks."""
    folder = ROOT / FOLDERS[stage.name]
    files = {
        folder / "__init__.py": "",
        folder / "component.py": component_source(stage),
        folder / "metadata.yaml": metadata_source(stage),
    }
    readme = folder / "README.md"
    if readme.exists():
        before, mark, rest = readme.read_text().partition(TABLES[0])
        if mark:
            files[readme] = before + tables(stage) + rest.partition(TABLES[1])[2]
    return files


def main() -> int:
    """Write what differs, or with `--check` only say it; exit status 1 then."""
    parser = argparse.ArgumentParser(prog="python -m components.sync", description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = 0
    for name in FOLDERS:
        for path, text in wanted_files(load_stage(name)).items():
            if path.exists() and path.read_text() == text:
                continue
            stale += 1
            print(f"{'stale' if check else 'written'}: {path.relative_to(ROOT.parent)}")
            if not check:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
    return 1 if check and stale else 0


def _argument_doc(name: str, text: str) -> str:
    # On one line, however long: kfp keeps the line breaks of a docstring in the description that people see.
    return f"        {name}: {' '.join(text.split())}\n"


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _extra(info: Any) -> dict[str, Any]:
    extra = info.json_schema_extra
    assert isinstance(extra, dict), "outputs are declared with stage.output()"
    return extra


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    return repr(value)


if __name__ == "__main__":
    sys.exit(main())
