"""A run on an MLflow tracking server."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from llava.tracking.sink import OF_A_STEP, About, Point

MOST_METRICS = 1000  # in one request, by MLflow's REST API
MOST_PARAMETERS = 100
LONGEST_VALUE = 6000
VALIDATION = "validation/loss"


class MlflowSink:
    """One MLflow run a stage, in the experiment that MLFLOW_EXPERIMENT_NAME names, else `llava`.

    Credentials are MLflow's own: MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN.
    """

    def __init__(self, place: str, about: About, identity: str | None) -> None:
        """Args:
        place: tracking URI; empty: MLFLOW_TRACKING_URI.
        identity: the id of the run to continue, if there is one.
        """
        # A server that is away must not hold the curves back for MLflow's default of minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=place or None)
        self._last = {OF_A_STEP: 0, VALIDATION: 0}
        if identity is not None:
            try:
                self._client.update_run(identity, status="RUNNING")
                for name in self._last:
                    history = self._client.get_metric_history(identity, name)
                    self._last[name] = max((metric.step for metric in history), default=0)
                self.identity = identity
                return
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "llava"
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self.identity = self._client.create_run(experiment_id, run_name=about.name).info.run_id
        parameters = [Param(name, value[:LONGEST_VALUE]) for name, value in sorted(about.parameters.items())]
        for start in range(0, len(parameters), MOST_PARAMETERS):
            self._client.log_batch(self.identity, params=parameters[start : start + MOST_PARAMETERS])

    def has(self, point: Point) -> bool:
        """Whether the server said so, or took it from us."""
        return point.step <= self._last[_kind(point)]

    def write(self, points: Sequence[Point]) -> None:
        """In requests of at most `MOST_METRICS` values, each whole or not at all."""
        from mlflow.entities import Metric

        for batch in _batches(points):
            metrics = [
                Metric(name, value, round(point.unix_time * 1000), point.step)
                for point in batch
                # The value that `has` asks for comes last: where it is, the others are, wherever a request was cut off.
                for name, value in sorted(point.values.items(), key=lambda item: item[0] in self._last)
            ]
            self._client.log_batch(self.identity, metrics=metrics)
            for point in batch:
                self._last[_kind(point)] = max(self._last[_kind(point)], point.step)

    def flush(self) -> None:
        """Nothing to do: `write` returns when the server has it."""

    def close(self, finished: bool, summary: dict[str, float]) -> None:
        """FINISHED or FAILED, with the last figures."""
        for name, value in summary.items():
            self._client.log_metric(self.identity, f"summary/{name}", value)
        self._client.set_terminated(self.identity, "FINISHED" if finished else "FAILED")


def _kind(point: Point) -> str:
    return OF_A_STEP if OF_A_STEP in point.values else VALIDATION


def _batches(points: Sequence[Point]) -> Iterator[list[Point]]:
    batch: list[Point] = []
    size = 0
    for point in points:
        if batch and size + len(point.values) > MOST_METRICS:
            yield batch
            batch, size = [], 0
        batch.append(point)
        size += len(point.values)
    if batch:
        yield batch
