"""The trackers themselves: TensorBoard's own reader, an MLflow store on disk, W&B offline."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llava import storage
from llava.tracking.destinations import Destination
from llava.tracking.sink import About, Point, Sink
from llava.tracking.tracker import make_sink
from tests.s3_server import S3Server

PARAMETERS = {"recipe": "tiny", "pretrain.learning_rate": "0.001", **{f"pretrain.f{i}": "x" * 7000 for i in range(120)}}


def about(folder: str, first_step: int = 0) -> About:
    return About("demo-pretrain", PARAMETERS, first_step, folder)


def point(step: int, loss: float | None = None) -> Point:
    return Point(step, 1_700_000_000.0 + step, {"train/loss": 1.0 / step if loss is None else loss, "train/lr": 0.5})


def send(sink: Sink, points: list[Point]) -> None:
    sink.write([one for one in points if not sink.has(one)])


def scalars(folder: str) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    reader = EventAccumulator(folder, size_guidance={"scalars": 0})
    reader.Reload()
    return {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


@pytest.mark.parametrize("place", ["disk", "moto_s3"])
@pytest.mark.slow
def test_tensorboard_shows_each_step_once_after_a_restart(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server: S3Server | None = request.getfixturevalue(place) if place != "disk" else None
    root = f"{server.uri}/checkpoints" if server else str(tmp_path / "checkpoints")
    first = make_sink(Destination("tensorboard"), about(root), None)
    send(first, [point(step) for step in range(1, 7)])
    first.flush()  # killed at step 6, the last checkpoint is of step 4
    again = make_sink(Destination("tensorboard"), about(root, first_step=4), first.identity)
    send(again, [point(step, loss=9.0 if step > 4 else 8.0) for step in range(1, 9)])
    again.write([Point(8, 1.0, {"validation/loss": 0.25})])
    again.close(True, {"train_seconds": 3.0})
    local = tmp_path / "read"
    if storage.is_remote(again.identity):
        storage.download(again.identity, local)
    else:
        local = Path(again.identity)
    found = scalars(str(local))
    assert [step for step, _ in found["train/loss"]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [value for _, value in found["train/loss"]] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 9, 9, 9, 9])
    assert found["validation/loss"] == [(8, 0.25)]
    assert found["summary/train_seconds"] == [(0, 3.0)]


def test_tensorboard_in_a_place_of_the_users(tmp_path: Path) -> None:
    sink = make_sink(Destination("tensorboard", str(tmp_path / "logs")), about(str(tmp_path / "c")), None)
    send(sink, [point(1)])
    sink.close(True, {})
    assert sink.identity == str(tmp_path / "logs" / "demo-pretrain")
    assert scalars(sink.identity)["train/loss"] == [(1, 1.0)]


@pytest.fixture
def mlflow_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return (tmp_path / "mlruns").as_uri()


def mlflow_client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


@pytest.mark.slow
def test_mlflow_holds_one_run_with_each_step_once(mlflow_store: str, tmp_path: Path) -> None:
    destination = Destination("mlflow", mlflow_store)
    first = make_sink(destination, about(str(tmp_path)), None)
    send(first, [point(step) for step in range(1, 701)])  # 1,400 values: two requests
    again = make_sink(destination, about(str(tmp_path), first_step=600), first.identity)
    send(again, [point(step) for step in range(601, 801)])
    send(again, [Point(800, 1.0, {"validation/loss": 0.25})])
    again.close(True, {"train_seconds": 3.0})
    client = mlflow_client(mlflow_store)
    (experiment,) = [one for one in client.search_experiments() if one.name == "llava"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == first.identity
    assert (run.info.run_name, run.info.status) == ("demo-pretrain", "FINISHED")
    assert run.data.params["pretrain.learning_rate"] == "0.001"
    assert len(run.data.params) == len(PARAMETERS)
    for name in ("train/loss", "train/lr"):
        assert [one.step for one in client.get_metric_history(first.identity, name)] == list(range(1, 801))
    assert run.data.metrics["validation/loss"] == 0.25
    assert run.data.metrics["summary/train_seconds"] == 3.0


@pytest.mark.slow
def test_mlflow_begins_anew_where_the_run_was_deleted(
    mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ours")
    sink = make_sink(Destination("mlflow", mlflow_store), about(str(tmp_path)), "0123456789abcdef0123456789abcdef")
    send(sink, [point(1)])
    sink.close(False, {})
    client = mlflow_client(mlflow_store)
    run = client.get_run(sink.identity)
    assert run.info.status == "FAILED"
    assert client.get_experiment(run.info.experiment_id).name == "ours"


def wandb_records(data: bytes) -> Iterator[Any]:
    """A `.wandb` file's records: W&B's header of 7 bytes, then LevelDB's log (crc, length, kind, body, in 32 KiB)."""
    from wandb.proto import wandb_internal_pb2

    at, whole = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no header fits: padding up to the next block
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the whole record, or its last piece
            record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
            record.ParseFromString(whole)
            whole = b""
            yield record


@pytest.mark.slow
def test_wandb_offline_writes_a_run_that_sync_can_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    sink = make_sink(Destination("wandb", "team/llava"), about(str(tmp_path)), None)
    send(sink, [point(step) for step in range(1, 4)])
    send(sink, [Point(3, 1.0, {"validation/loss": 0.25})])
    sink.close(True, {"train_seconds": 3.0})
    (file,) = (tmp_path / "wandb").glob(f"offline-run-*/run-{sink.identity}.wandb")

    def history() -> list[dict[str, str]]:
        return [
            {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            for record in wandb_records(file.read_bytes())
            if record.WhichOneof("record_type") == "history"
        ]

    deadline = time.monotonic() + 30
    while len(rows := history()) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)  # W&B's own process writes the file, on a busy machine later than it says
    assert [float(row["train/loss"]) for row in rows] == pytest.approx([1.0, 1 / 2, 1 / 3])
    assert [int(row["_step"]) for row in rows] == [1, 2, 3]
    assert float(rows[-1]["validation/loss"]) == 0.25
