"""The command line of `pipeline.py`.

The factory that makes pipelines (`pipeline.build`) is handed in, because it stands above this package.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from llava import extras, storage
from llava.cli.plain_errors import run_app
from llava.errors import SettingsError
from llava.pipelines import options as opt
from llava.pipelines.clean_command import add_clean
from llava.pipelines.clustertest.command import add_clustertest
from llava.pipelines.clustertest.world import MakeWorld
from llava.pipelines.cost_command import add_cost
from llava.pipelines.graph import STAGES, package_names, plan_package
from llava.pipelines.options import json_object, package_of, pairs, parameter_file, read_parameters
from llava.pipelines.package import compile_package
from llava.pipelines.parameters import require_sound_run
from llava.pipelines.register_command import add_register
from llava.pipelines.remote_commands import PACKAGES, add_remote_commands, local_folder, run_here
from llava.pipelines.resources import ClusterOptions
from llava.pipelines.schedule_commands import add_schedule

HELP = (
    f"LLaVA's pipelines: {', '.join(STAGES)}.\n\n"
    "The package full runs all stages; from-STAGE and only-STAGE start from artifacts of an earlier run. Every command "
    "compiles what it needs. On this machine: run. On Kubeflow: submit; or upload, then Create run in its UI. "
    "Some stages again: rerun."
)


def make_app(build: opt.Build, make_world: MakeWorld | None = None) -> typer.Typer:
    """The commands over a factory of pipelines, and over one of small worlds for the cluster test."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=HELP)

    @app.command("compile")
    def compile_command(
        from_stage: opt.FromOption = None,
        only_stage: opt.OnlyOption = None,
        out: Annotated[Path, typer.Option(help="Folder to write to")] = PACKAGES,
        images: opt.LockOption = None,
        require_pinned: opt.PinnedOption = False,
        queue: opt.QueueOption = "",
        priority: opt.PriorityOption = "",
        label: opt.LabelOption = None,
        hub_cache: opt.HubCacheOption = "",
    ) -> None:
        """Compile and lint the packages, for the Kubeflow UI: all of them, or one."""
        one = package_of(from_stage, only_stage)
        names = [one] if one else package_names()
        options = ClusterOptions(queue, priority, pairs(label, "--label"), hub_cache)
        loose: set[str] = set()
        for name in names:
            path, found = compile_package(build, name, out, options, images)
            loose |= set(found)
            typer.echo(f"{path}  {path.stat().st_size / 1000:.0f} kB")
        if loose:
            text = f"not pinned by digest: {', '.join(sorted(loose))}"
            if require_pinned:
                raise SettingsError(f"{text}; build the images and update images.lock.json")
            typer.echo(f"note: {text} (a development build; CI pins them)", err=True)

    @app.command()
    def run(
        param: opt.ParamOption = None,
        params: opt.FileOption = None,
        package: opt.PackageOption = "full",
        root: Annotated[str, typer.Option(help="Folder, or s3:// URI, for artifacts")] = "runs/local",
        work: Annotated[
            Path | None, typer.Option(help="Folder for bookkeeping and cache", show_default="ROOT, or runs/local")
        ] = None,
        runner: Annotated[
            str, typer.Option(help="subprocess: stages as processes here; docker: in their images")
        ] = "subprocess",
        docker: Annotated[str, typer.Option(help="Arguments of docker run as docker-py names them, as JSON")] = "{}",
        interpreter: Annotated[
            list[str] | None, typer.Option(metavar="IMAGE=PYTHON", help="Interpreter for an image; repeat")
        ] = None,
        images: opt.LockOption = None,
        cache: Annotated[bool, typer.Option(help="Use results of earlier runs")] = True,
        salt: Annotated[str, typer.Option(help="Anything else the results depend on; mixed into the cache key")] = "",
    ) -> None:
        """Compile a package and run it on this machine."""
        if runner not in ("subprocess", "docker"):
            raise SettingsError(f"--runner: found {runner!r}; expected subprocess or docker")
        kind: Literal["subprocess", "docker"] = "docker" if runner == "docker" else "subprocess"
        arguments = read_parameters(params, param)
        # In Docker a stage's places are those of its container.
        arguments = require_sound_run(package, arguments, here=kind == "subprocess")
        extras.require("pipeline.py run", "pipeline", ["kfp"])
        from llava.local.run import LocalOptions

        folder = local_folder(root, work)
        compiled, _ = compile_package(build, package, folder / "packages", ClusterOptions(), images)
        options = LocalOptions(
            root=folder,
            artifacts=root if storage.is_remote(root) else None,
            runner=kind,
            docker=json_object(docker, "--docker"),
            interpreters=pairs(interpreter, "--interpreter"),
            cache=cache,
            salt=salt,
        )
        run_here(compiled, arguments, options)

    @app.command()
    def parameters(package: opt.PackageOption = "full") -> None:
        """Every pipeline parameter with default and description: a file to fill in for --params."""
        plan_package(package)  # refuses a name that is none before kfp is imported
        with tempfile.TemporaryDirectory(prefix="llava-package-") as folder:
            compiled, _ = compile_package(build, package, Path(folder), ClusterOptions())
            typer.echo(parameter_file(compiled))

    @app.command("list")
    def list_command(
        root: Annotated[str, typer.Option(help="Folder or s3:// URI below which runs lie")] = "runs",
        limit: Annotated[int, typer.Option(help="Show so many, newest first", min=1)] = 20,
    ) -> None:
        """Finished runs of this machine: id, when, how long, what came out."""
        from itertools import islice

        if not storage.is_remote(root) and not storage.local_path(root).is_dir():
            raise SettingsError(f"--root: {root}: no such folder; expected --root of a run, or one above")
        extras.require("pipeline.py list", "pipeline", ["kfp"])
        from llava.local.leavings import listed, runs_below

        found = list(islice(runs_below(root), limit))
        typer.echo(listed(found) if found else f"no finished run below {root}; `llava pipeline run` makes one")

    add_remote_commands(app, build)
    add_schedule(app, build)
    add_clean(app)
    add_cost(app)
    add_register(app)
    if make_world:
        add_clustertest(app, build, make_world)
    return app


def main(build: opt.Build, argv: list[str] | None = None, make_world: MakeWorld | None = None) -> int:
    """Entry point of `pipeline.py`; exit status 2 after a message for what the user can put right."""
    return run_app(make_app(build, make_world), argv, "pipeline")
