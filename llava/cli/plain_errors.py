"""How a command line ends: one line and exit status 2 for what its user can put right, whichever program it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer
from typer.main import get_command

from llava import extras
from llava.errors import UserError

USER_ERROR_EXIT = 2
# What typer raises for a wrong option or argument; it has no public name of its own.
_UsageError: Any = typer.BadParameter.__bases__[0]


def run_app(app: typer.Typer, arguments: Sequence[str] | None, program: str) -> int:
    """Run a command line to its end.

    Args:
        arguments: without the program's name; None: those of this process.
        program: what messages begin with.

    Returns:
        The exit status: 0; 2 after a message for the user; 130 when interrupted; a command's own.
    """
    command = get_command(app)
    try:
        ended = command.main(args=list(arguments) if arguments is not None else None, standalone_mode=False)
        return ended if isinstance(ended, int) else 0
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message(), err=True)
            return USER_ERROR_EXIT
        path = error.ctx.command_path if error.ctx is not None else program
        typer.echo(f"{program}: {_one_line(error.format_message())} ({path} --help)", err=True)
    except UserError as error:
        typer.echo(f"{program}: {error}", err=True)
    except ModuleNotFoundError as error:
        said = extras.explain(error)
        if said is None:
            raise
        typer.echo(f"{program}: {said}", err=True)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo(f"{program}: interrupted", err=True)
        return 130
    return USER_ERROR_EXIT


def _one_line(text: str) -> str:
    return " ".join(text.split())
