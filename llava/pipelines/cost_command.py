"""`pipeline.py cost`: what a run used, by stage, attempts that failed included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from llava.errors import SettingsError, UserError
from llava.pipelines.executions import Execution
from llava.pipelines.graph import STAGES
from llava.pipelines.options import HostOption, NamespaceOption
from llava.pipelines.service import Service

# Argo counts seconds times the amount, memory by 100 MiB (pkg/apis/workflow/v1alpha1, ResourcesDuration).
_HOUR, _MEMORY_GIB = 3600, 100 / 1024


def add_cost(app: typer.Typer) -> None:
    """Add the command to `app`."""

    @app.command()
    def cost(
        run: Annotated[str, typer.Option(help="Id of the run")],
        price: Annotated[
            float | None, typer.Option(min=0, envvar="LLAVA_ACCELERATOR_PRICE", help="Of one accelerator for an hour")
        ] = None,
        accelerator_type: Annotated[str, typer.Option(help="Resource name of the accelerator")] = "nvidia.com/gpu",
        host: HostOption = None,
        namespace: NamespaceOption = "kubeflow",
    ) -> None:
        """Accelerator, CPU and memory hours of a run by stage, and the accelerators' price; failed attempts count too.

        As Argo keeps them for the run's own pods. The nodes of a TrainJob are not among these: their hours are in the
        stage's metrics (accelerator_hours).
        """
        found = Service(host, namespace).executions(run)
        if not found:
            raise UserError(f"run {run}: the API keeps no pods of it; it came from the cache, or its workflow is gone")
        typer.echo(table(found, accelerator_type, price))


def table(executions: Sequence[Execution], accelerator_type: str, price: float | None) -> str:
    """Hours by stage, and their sum.

    Raises:
        SettingsError: the price is no price.
    """
    if price is not None and not price >= 0:
        raise SettingsError(f"--price: found {price}; expected at least 0")
    rows = []
    for stage in STAGES:
        mine = [execution for execution in executions if execution.stage == stage]
        if mine:
            rows.append((stage, sum(len(e.pods) for e in mine), hours([e.resources for e in mine], accelerator_type)))
    total = tuple(sum(amounts[column] for _, _, amounts in rows) for column in range(3))
    lines = [
        f"{'stage':<10}{'pods':>6}{'accelerator h':>15}{'CPU h':>9}{'GiB h':>9}"
        + ("" if price is None else f"{'price':>10}")
    ]
    for stage, pods, amounts in [*rows, ("sum", sum(pods for _, pods, _ in rows), total)]:
        line = f"{stage:<10}{pods:>6}{amounts[0]:>15.2f}{amounts[1]:>9.2f}{amounts[2]:>9.1f}"
        lines.append(line + ("" if price is None else f"{amounts[0] * price:>10.2f}"))
    return "\n".join(lines)


def hours(used: Sequence[Mapping[str, float]], accelerator_type: str) -> tuple[float, ...]:
    """Accelerator, CPU and GiB hours."""
    units = ((accelerator_type, 1.0), ("cpu", 1.0), ("memory", _MEMORY_GIB))
    return tuple(sum(each.get(name, 0.0) for each in used) * unit / _HOUR for name, unit in units)
