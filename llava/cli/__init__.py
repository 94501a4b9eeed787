"""The `llava` command.

Only the module of the command asked for is imported, so `llava --help` and `llava expand --help` answer at once and
work in an image without torch.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

import llava
from llava.cli.plain_errors import run_app
from llava.processes import yield_idle_cores
from llava.revision import revision
from llava.stages.stage import STAGE_MODULES, load_stage

SUMMARIES = {
    "expand": "COCO annotations to rows for both training stages, by templates and a teacher",
    "pretrain": "Stage 1: align the projector; everything else is frozen",
    "finetune": "Stage 2: train projector and language model on instructions",
    "evaluate": "Answer a benchmark in batches and score it, beside two baselines",
    "export": "Vision tower and projector as ONNX, checked against torch",
    "compare": "Finished evaluations side by side: paired differences, wins and losses",
    "init": "Write a commented run.yaml for your own pictures",
    "pipeline": "All stages in one go, on this machine or on Kubeflow: what pipeline.py does",
    "data": "Check a dataset, convert its rows, pack images into tar shards",
    "plan": "Memory, pack size, steps, hours and cost of a recipe on given GPUs",
    "gguf": "A language model's GGUF file as a model directory, dequantised",
    "merge": "Merge LoRA weights into a plain model directory",
    "chat": "Ask a trained model about an image",
    "doctor": "Look at this machine: versions, GPU, memory, store, hub; what to do about what is missing",
    "serve": "Serve a trained model with OpenAI's chat API, and a page to try it",
    "announce": "Tell a webhook of the runs that have ended",
}


def make_app(wanted: str | None) -> typer.Typer:
    """The command tree, with the command `wanted` complete and every other one as its line in the help."""
    app = typer.Typer(
        name="llava",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        help="LLaVA, stage by stage. Every place may be a path or an s3:// URI; `llava COMMAND --help` says more.",
    )

    @app.callback()
    def root(
        version: Annotated[
            bool, typer.Option("--version", help="Show the version and exit", callback=_show_version, is_eager=True)
        ] = False,
    ) -> None:
        """Keeps Typer from making a single command the whole program."""

    for name, summary in SUMMARIES.items():
        panel = "Stages" if name in STAGE_MODULES else "Tools"
        if name != wanted:
            app.command(name, help=summary, rich_help_panel=panel)(_placeholder)
            continue
        group = _load(name)
        single = _single_command(group, name)
        if single is not None:
            app.command(name, help=single.help, rich_help_panel=panel)(single.callback)
        else:
            app.add_typer(group, name=name, rich_help_panel=panel)
    return app


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point. Exits 0, or 2 with a message for what the user can put right; other errors keep their traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    yield_idle_cores()
    # A shell that completes a line gives it in the environment.
    words = arguments or _words_to_complete(os.environ)
    wanted = next((argument for argument in words if not argument.startswith("-")), None)
    raise SystemExit(run_app(make_app(wanted), arguments, "llava"))


def _show_version(wanted: bool) -> None:
    if wanted:
        commit = revision()
        typer.echo(f"llava {llava.__version__}{f' ({commit})' if commit else ''}")
        raise typer.Exit


def _words_to_complete(environment: Mapping[str, str]) -> list[str]:
    """The words behind the program's name of a line that a shell has us complete."""
    return (environment.get("_TYPER_COMPLETE_ARGS") or environment.get("COMP_WORDS") or "").split()[1:]


def _load(name: str) -> typer.Typer:
    if name not in STAGE_MODULES:
        module = importlib.import_module(f"llava.cli.{name}")
        assert isinstance(module.app, typer.Typer)
        return module.app
    from llava.cli.stages import stage_command

    # A stage may bring subcommands (`llava expand plan`) in a module of its own name.
    try:
        group: typer.Typer = importlib.import_module(f"llava.cli.{name}").app
    except ModuleNotFoundError as error:
        if error.name != f"llava.cli.{name}":
            raise
        group = typer.Typer()
    stage_command(load_stage(name), group)
    return group


def _single_command(group: typer.Typer, name: str) -> Any:
    """The only command of a module whose app has nothing else: `llava chat`, not `llava chat chat`."""
    commands = group.registered_commands
    if len(commands) != 1 or group.registered_groups or group.registered_callback is not None:
        return None
    own_name = commands[0].name or (commands[0].callback.__name__ if commands[0].callback else None)
    return commands[0] if own_name in (name, "main") else None


def _placeholder() -> None:
    """Stands in the help for a command that was not asked for; never called."""
