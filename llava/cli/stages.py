"""`llava expand|pretrain|finetune|evaluate|export`: one command per stage, generated from the stage's definition.

A flag exists because a field exists: names, types, defaults and help text come from `Settings`, `Inputs` and `Outputs`.
Values are checked by those models alone, so a wrong value reads the same here as on a cluster.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Any, get_type_hints

import typer
from rich.markup import escape

from llava.errors import SettingsError
from llava.stages.calling import SUFFIX, call
from llava.stages.fields import choices, default_of, scalar_type
from llava.stages.stage import Stage, StageSettings, output_form
from llava.validation import validate
from llava.written_numbers import readable


def stage_command(stage: Stage, app: typer.Typer) -> None:
    """Add the stage's command to `app`: the app itself becomes `llava <stage>`, with room for subcommands."""
    parameters = [
        *(_setting(name, info) for name, info in stage.settings.model_fields.items()),
        *(
            _option(name, str, info.description or "", "Inputs (paths or URIs)", required=info.is_required())
            for name, info in stage.inputs.model_fields.items()
        ),
        _option(
            "out",
            str,
            "Folder or URI below which every output goes that is not placed by a flag of its own",
            "Outputs (paths or URIs)",
        ),
        *(
            _option(
                name,
                str,
                f"{info.description or ''} [default: OUT/{name}{SUFFIX[output_form(info)]}]",
                "Outputs (paths or URIs)",
            )
            for name, info in stage.outputs.model_fields.items()
        ),
    ]

    def command(context: typer.Context, **values: Any) -> None:
        if context.invoked_subcommand is None:
            run_stage(stage, values)

    context_parameter = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    _sign(command, [context_parameter, *parameters])
    # The usage line names subcommands only where the stage brings some.
    usage = "[COMMAND]" if app.registered_commands else ""
    app.callback(invoke_without_command=True, help=stage.summary, subcommand_metavar=usage)(command)


def with_settings(
    model: type[StageSettings], command: str, *names: str, required: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """For a command beside a stage: some of the stage's flags, read and checked as the stage does.

    The function gets the settings first (those without a flag at their defaults), and its own options after them.

    Args:
        command: what an error calls it (`llava expand plan`).
        names: fields of `model`, in the help's order.
        required: of these, the ones that must not be left empty here although the stage has a default.

    Raises:
        SettingsError: a flag is wrong or missing.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        own = list(inspect.signature(function).parameters.values())[1:]
        parameters = [
            *(_setting(name, model.model_fields[name], required=name in required) for name in names),
            *(one.replace(annotation=hints[one.name], kind=inspect.Parameter.KEYWORD_ONLY) for one in own),
        ]

        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in names}
            given = {name: value for name, value in given.items() if value is not None}
            for name in required:
                if not given.get(name):
                    raise SettingsError(f"{command}: --{name.replace('_', '-')} is missing")
            function(validate(model, given, command), **values)

        run.__doc__ = function.__doc__
        _sign(run, parameters)
        return run

    return decorate


def _sign(function: Callable[..., None], parameters: Sequence[inspect.Parameter]) -> None:
    """Typer reads a function's signature; this one is made from fields."""
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


def run_stage(stage: Stage, values: dict[str, Any]) -> None:
    """Validate flags, run the stage, print its numbers and where its outputs are.

    Raises:
        UserError: a flag is wrong, or whatever the stage found.
    """
    start = time.monotonic()
    called = call(stage, values)
    seconds = time.monotonic() - start
    typer.echo(f"{stage.name}: done in {seconds:.0f} s")
    for metric, value in sorted(called.metrics.items()):
        typer.echo(f"  {metric:<28} {readable(value)}")
    for name, place in called.places.items():
        typer.echo(f"  {name:<28} {place}")


def _setting(name: str, info: Any, *, required: bool = False) -> inspect.Parameter:
    default = default_of(info)
    text = info.description or ""
    if choices(info):
        text += f" ({' | '.join(choices(info))})"
    if default not in (None, ""):
        text += f" [default: {default}]"
    return _option(name, scalar_type(info), text, "Settings", required=required or info.is_required())


def _option(name: str, kind: type, text: str, panel: str, *, required: bool = False) -> inspect.Parameter:
    # Never required for Typer: a subcommand must not ask for its parent's flags, and the models say what is missing.
    flag = name.replace("_", "-")
    declared = f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"
    option = typer.Option(
        declared, help=escape(f"{text} [required]" if required else text), rich_help_panel=panel, show_default=False
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )
