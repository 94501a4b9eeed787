"""`pipeline.py register`: a run's model, or an artifact by URI, into Kubeflow's Model Registry."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Annotated, Literal

import typer

from llava.errors import SettingsError, UserError
from llava.pipelines.options import ContextOption, HostOption, NamespaceOption

PRODUCERS = {"model": ("finetune", "model"), "onnx": ("export", "onnx")}


def add_register(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @app.command()
    def register(
        name: Annotated[str, typer.Option(help="Name of the model in the registry")],
        version: Annotated[str, typer.Option(help="Its version there")],
        registry: Annotated[
            str, typer.Option(envvar="LLAVA_MODEL_REGISTRY", help="URL of the Model Registry's REST service")
        ],
        run: Annotated[str | None, typer.Option(help="The run whose model it is; figures are its evaluation's")] = None,
        model: Annotated[str | None, typer.Option(help="Instead: path or URI of a model or an export")] = None,
        what: Annotated[Literal["model", "onnx"], typer.Option(help="With --run: which of its artifacts")] = "model",
        author: Annotated[str | None, typer.Option(help="Who is named", show_default="you")] = None,
        root: Annotated[str | None, typer.Option(help="Pipeline root of the run", show_default="the service's")] = None,
        host: HostOption = None,
        namespace: NamespaceOption = "kubeflow",
        context: ContextOption = None,
    ) -> None:
        """Register a model: its URI, format, recipe, figures, parents. A bearer token: MODEL_REGISTRY_TOKEN."""
        from llava.pipelines.registry import RegistryError, author_of_environment, registration_of
        from llava.pipelines.registry import register as register_model

        if (run is None) == (model is None):
            raise SettingsError("give one of --run and --model")
        if importlib.util.find_spec("model_registry") is None:
            raise SettingsError("Kubeflow's client is not installed: pip install 'llava-pipelines[registry]'")
        figures: Mapping[str, float] = {}
        if run is not None:
            model, figures = _of_run(run, what, root, host, namespace, context)
        assert model is not None
        registration = registration_of(model, name, version, figures=figures, run=run or "")
        try:
            found = register_model(
                registration,
                registry,
                author=author or author_of_environment(),
                token=os.environ.get("MODEL_REGISTRY_TOKEN", ""),
            )
        except RegistryError as error:
            raise UserError(
                f"{error}\nnothing is lost: the model is at {model}; when the registry answers again:\n"
                f"  python pipeline.py register --registry {registry} --name {name} --version {version} --model {model}"
            ) from error
        typer.echo(f"registered {name} {version} (model {found})\n{model}")


def _of_run(
    run: str, what: str, root: str | None, host: str | None, namespace: str, context: str | None
) -> tuple[str, Mapping[str, float]]:
    """URI of a run's artifact, and the figures of its evaluation where there was one."""
    from llava import storage
    from llava.executor import RECORD_NAME, OutputRecord
    from llava.pipelines.lookup import look_up
    from llava.pipelines.service import Service
    from llava.validation import validate

    service = Service(host, namespace)
    source = PRODUCERS[what]
    earlier, uris = look_up(service, service.run(run), [source], [], root=root, namespace=namespace, context=context)
    metrics = earlier.artifacts.get(("evaluate", "metrics"))
    if metrics is None:
        return uris[source], {}
    place = storage.join(metrics.rstrip("/").rpartition("/")[0], RECORD_NAME)
    record = validate(OutputRecord, storage.read_json(place), place)
    return uris[source], record.metrics
