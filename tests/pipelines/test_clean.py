"""What `clean` deletes of old runs, and what it never deletes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pipeline
from llava import storage
from llava.errors import SettingsError
from llava.executor import RECORD_NAME, OutputRecord
from llava.pipelines.commands import make_app
from llava.pipelines.graph import FLOW
from llava.stages.stage import load_stage
from llava.storage import clients
from tests.pipelines.kfp_server import KfpServer, kfp_server
from tests.s3_server import S3Server, moto_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    with moto_server() as server:
        yield server


class World:
    """Runs in a service, and what they left in a store."""

    def __init__(self, server: KfpServer, root: str) -> None:
        self.server, self.root = server, root

    def run(
        self, run: str, day: int, *stages: str, state: str = "SUCCEEDED", **parameters: Any
    ) -> dict[tuple[str, str], str]:
        """A run of August `day` that executed `stages`."""
        self.server.runs[run] = {
            "run_id": run, "display_name": f"n-{run}", "state": state, "created_at": f"2026-08-{day:02d}T10:00:00Z",
            "runtime_config": {"parameters": {"recipe": run, **parameters}},
        }  # fmt: skip
        made: dict[tuple[str, str], str] = {}
        for stage in stages:
            folder = f"{self.root}/llava-full/{run}/{stage}/5a17"
            outputs = {name: f"{folder}/{name}" for name in load_stage(stage).outputs.model_fields}
            made.update({(stage, name): uri for name, uri in outputs.items()})
            inputs = {slot: made[source] for slot, source in FLOW[stage].items() if source in made}
            for name, uri in outputs.items():
                leaf = (
                    uri if name.endswith("data") else f"{uri}/{'step-00000009/' if name == 'checkpoints' else ''}x.bin"
                )
                storage.write_text(leaf, "0123456789")
            self.record(folder, stage, inputs, outputs)
        return made

    @staticmethod
    def record(folder: str, stage: str, inputs: dict[str, str], outputs: dict[str, str]) -> None:
        record = OutputRecord(stage=stage, settings={}, inputs=inputs, outputs=outputs, seconds=1, finished_unix=1)
        storage.write_json(f"{folder}/{RECORD_NAME}", record.model_dump())

    def left(self, run: str = "") -> set[str]:
        """stage/output of everything that a run left and that is still there."""
        found = set()
        for file in storage.list_files(f"{self.root}/llava-full/{run}"):
            words = file.path.split("/")
            found.add(f"{words[0]}/{words[2]}")
        return found


@pytest.fixture
def world(store: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.chdir(tmp_path)
    for name in ("KF_PIPELINES_TOKEN", "KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    clients.forget_client()
    root = f"{store.uri}/{tmp_path.name}"
    with kfp_server() as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
        storage.write_text(f"{root}/somebody-elses/file", "x")
        storage.write_text(f"{root}/llava-full/README", "x")
        yield World(server, root)
        assert storage.exists(f"{root}/somebody-elses/file") and storage.exists(f"{root}/llava-full/README")
    clients.forget_client()


def clean(world: World, *arguments: str) -> None:
    make_app(pipeline.build)(["clean", "--root", world.root, *arguments], standalone_mode=False)


def test_old_runs_go_and_the_newest_stay(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for day in (1, 2, 3, 4):
        world.run(f"run-{day}", day, "expand", "pretrain")
    before = {run: world.left(run) for run in world.server.runs}
    clean(world, "--keep", "2")
    said = capsys.readouterr().out
    assert "run-1  n-run-1  SUCCEEDED: old" in said and "run-4  n-run-4  SUCCEEDED: stays" in said
    assert "nothing was deleted" in said
    assert {run: world.left(run) for run in world.server.runs} == before and len(world.server.runs) == 4
    clean(world, "--keep", "2", "--delete", "--yes")
    assert [world.left(f"run-{day}") for day in (1, 2)] == [set(), set()]
    assert [world.left(f"run-{day}") for day in (3, 4)] == [before["run-3"], before["run-4"]]
    # Kubeflow's cache goes by the run, so that it never gives out what is gone.
    assert set(world.server.runs) == {"run-3", "run-4"}


def test_checkpoints_only(world: World) -> None:
    world.run("run-1", 1, "expand", "pretrain")
    world.run("run-2", 2, "expand", "pretrain")
    before = world.left("run-1")
    clean(world, "--keep", "1", "--checkpoints-only", "--delete", "--yes")
    assert before - world.left("run-1") == {"pretrain/checkpoints"}
    assert set(world.server.runs) == {"run-1", "run-2"}


def test_what_a_later_run_refers_to_stays(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    one = world.run("run-1", 1, "expand", "pretrain", "finetune")
    # By a parameter (checkpoints to resume from, in quotes inside JSON), and by what one of its stages read.
    world.run("run-2", 2, finetune_resume_uri=one["finetune", "checkpoints"], expand_seed=2)
    folder = f"{world.root}/llava-full/run-2/evaluate/5a17"
    world.record(folder, "evaluate", {"model": one["finetune", "model"]}, {"metrics": f"{folder}/metrics"})
    world.server.schedules["s"] = {
        "recurring_run_id": "s",
        "runtime_config": {"parameters": {"pretrain_data_uri": one["expand", "pretrain_data"]}},
    }  # fmt: skip
    clean(world, "--keep", "1", "--delete", "--yes")
    assert world.left("run-1") == {"finetune/checkpoints", "finetune/model", "expand/pretrain_data"}
    said = capsys.readouterr().out
    assert "(run run-2 refers to it)" in said and "(schedule s refers to it)" in said


def test_what_a_later_run_may_have_from_the_cache_stays(world: World) -> None:
    world.run("run-1", 1, "expand", "pretrain", recipe="tiny", images_uri="s3://b/i", expand_limit=7)
    world.run("run-2", 2, "pretrain", recipe="other", images_uri="s3://b/i", expand_limit=7)  # expand: from the cache
    clean(world, "--keep", "1", "--delete", "--yes")
    assert {part.partition("/")[0] for part in world.left("run-1")} == {"expand"}


def test_a_registered_model_stays(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    one = world.run("run-1", 1, "finetune")
    world.run("run-2", 2, "finetune")
    storage.write_json(f"{one['finetune', 'model']}/registered.json", {"name": "shapes 3"})
    clean(world, "--keep", "1", "--delete", "--yes")
    assert world.left("run-1") == {"finetune/model"}
    assert "registered as shapes 3" in capsys.readouterr().out


def test_a_run_in_progress(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.run("run-1", 1, "pretrain", state="RUNNING")
    world.run("run-2", 2, "pretrain")
    before = world.left("run-1")
    with pytest.raises(SettingsError, match=r"run run-1 is in progress \(RUNNING\)"):
        clean(world, "--run", "run-1", "--delete", "--yes")
    clean(world, "--keep", "1", "--delete", "--yes")
    assert world.left("run-1") == before and "run-1  n-run-1  in progress: stays" in capsys.readouterr().out
    with pytest.raises(SettingsError, match="run run-9: nothing of it below"):
        clean(world, "--run", "run-9")
    with pytest.raises(SettingsError, match="one of --keep and --run"):
        clean(world)


def test_a_run_kubeflow_no_longer_knows(world: World) -> None:
    world.run("run-1", 1, "pretrain")
    world.run("run-2", 2, "pretrain")
    del world.server.runs["run-1"]
    clean(world, "--keep", "1", "--delete", "--yes")
    assert not world.left("run-1") and world.left("run-2")
