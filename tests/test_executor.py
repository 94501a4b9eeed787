"""The door: Kubeflow's JSON becomes settings, paths and files; what comes back is what its backend accepts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava import executor, launcher_paths, storage
from llava.errors import SettingsError
from llava.launcher_paths import artifact_uri, launcher_path
from llava.stages.finite import finite
from tests.local.tiny_stages import STAGES


def executor_input(
    root: Path, stage: str, values: dict[str, Any], inputs: dict[str, str] | None = None
) -> dict[str, Any]:
    """What kfp makes for a task: see `executor_input_utils.construct_executor_input`."""

    def artifact(name: str, uri: str) -> dict[str, Any]:
        return {"artifacts": [{"name": name, "type": {"schemaTitle": "system.Artifact"}, "uri": uri, "metadata": {}}]}

    outputs = STAGES[stage].outputs.model_fields
    return {
        "inputs": {
            "parameterValues": values,
            "artifacts": {name: artifact(name, uri) for name, uri in (inputs or {}).items()},
        },
        "outputs": {
            "artifacts": {name: artifact(name, str(root / name)) for name in outputs},
            "outputFile": str(root / "executor_output.json"),
        },
    }


def test_outputs_metadata_and_record(tmp_path: Path) -> None:
    given_input = executor_input(tmp_path / "run", "make", {"log": str(tmp_path / "log"), "rows": 4})
    executor.execute(STAGES["make"], given_input)

    written = json.loads((tmp_path / "run/executor_output.json").read_text())
    assert set(written) == {"parameterValues", "artifacts"}
    assert written["artifacts"]["data"]["artifacts"] == [
        {"name": "data", "uri": str(tmp_path / "run/data"), "metadata": {"stage": "make", "kind": "plain"}}
    ]
    metrics = written["artifacts"]["metrics"]["artifacts"][0]["metadata"]
    assert metrics["rows"] == 4 and metrics["stage_seconds"] >= 0
    assert "broken" not in metrics, "NaN fails the task on a cluster"
    # Kubeflow's local cache takes an artifact without a file for lost.
    assert all((tmp_path / "run" / name).exists() for name in ("data", "report", "metrics"))

    record = executor.OutputRecord.model_validate(storage.read_json(str(tmp_path / "run" / executor.RECORD_NAME)))
    assert record.stage == "make" and record.settings["rows"] == 4
    assert record.outputs["data"] == str(tmp_path / "run/data")


def test_numbers_nulls_and_channels(tmp_path: Path) -> None:
    """Integers come as floats, absent optionals as null, and resource parameters of the pipeline come along."""
    values = {"log": "l", "rows": 4.0, "limit": None, "pipelinechannel--gpus": "8", "cpu_limit": "4"}
    settings = executor.read_settings(STAGES["make"], values)
    assert settings.rows == 4 and isinstance(settings.rows, int)  # type: ignore[attr-defined]
    assert settings.limit is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"log": "l", "rows": 2.5}, "rows: found 2.5"),
        ({"log": "l", "rowz": 2}, "rowz: unknown field (value 2); did you mean rows?"),
        ({"rows": 2}, "log: missing"),
        ({"log": "l", "rows": 0}, "rows: found 0; Input should be greater than or equal to 1"),
        ({"log": "l", "kind": "odd"}, "kind: found 'odd'; Input should be 'plain' or 'fancy'"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match="make settings") as caught:
        executor.read_settings(STAGES["make"], values)
    assert said in str(caught.value)


def test_inputs_optional_absent_and_required_missing(tmp_path: Path) -> None:
    places, uris = executor.read_inputs(STAGES["judge"], {"model": {"artifacts": [{"uri": "/m"}]}})
    assert places.model_dump() == {"model": "/m", "data": None} and uris == {"model": "/m"}
    with pytest.raises(SettingsError, match="model: missing"):
        executor.read_inputs(STAGES["judge"], {})


def test_inputs_come_by_uri_too_but_not_twice() -> None:
    """What an importer brings from another bucket the launcher cannot fetch, so it comes as a parameter."""
    places, uris = executor.read_inputs(STAGES["judge"], {}, {"model_uri": "s3://models/mine/", "data_uri": ""})
    assert places.model_dump() == {"model": "s3://models/mine", "data": None} and uris == {"model": "s3://models/mine"}
    assert executor.read_settings(STAGES["judge"], {"log": "l", "model_uri": "s3://m"}).model_dump() == {"log": "l"}
    with pytest.raises(SettingsError, match=r"judge: model comes as an artifact \(/m\) and by model_uri \(s3://n\)"):
        executor.read_inputs(STAGES["judge"], {"model": {"artifacts": [{"uri": "/m"}]}}, {"model_uri": "s3://n"})


def test_the_launchers_copy_is_used_where_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(launcher_paths._MOUNTS, "s3://", f"{tmp_path}/s3/")
    (tmp_path / "s3/bucket/run/model").mkdir(parents=True)
    given_inputs = {
        "model": {"artifacts": [{"uri": "s3://bucket/run/model"}]},
        "data": {"artifacts": [{"uri": "s3://bucket/run/data"}]},
    }
    places, uris = executor.read_inputs(STAGES["judge"], given_inputs)
    assert places.model_dump() == {"model": f"{tmp_path}/s3/bucket/run/model", "data": "s3://bucket/run/data"}
    assert uris["model"] == "s3://bucket/run/model"


@pytest.mark.parametrize("uri", ["s3://bucket/run/report", "minio://bucket/run/report"])
def test_where_outputs_go(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the launcher: big things straight to the store, small ones to the folder it uploads from."""
    for scheme in launcher_paths._MOUNTS:
        monkeypatch.setitem(launcher_paths._MOUNTS, scheme, f"{tmp_path}/mnt/")
    base = uri.rpartition("/")[0]
    artifacts = {name: {"artifacts": [{"uri": f"{base}/{name}"}]} for name in ("data", "report", "metrics")}
    places, _ = executor.place_outputs(STAGES["make"], artifacts)
    assert places.model_dump() == {
        "data": f"{base}/data",
        "report": f"{tmp_path}/mnt/bucket/run/report",
        "metrics": f"{tmp_path}/mnt/bucket/run/metrics",
    }
    assert (tmp_path / "mnt/bucket/run").is_dir()
    monkeypatch.setenv("LLAVA_NO_LAUNCHER", "1")
    places, _ = executor.place_outputs(STAGES["make"], artifacts)
    assert places.model_dump()["report"] == f"{base}/report"


def test_launcher_paths_there_and_back() -> None:
    assert launcher_path("minio://b/k/x?endpoint=e") == Path("/minio/b/k/x")
    assert artifact_uri("/s3/b/k") == "s3://b/k" and artifact_uri("/data/s3/b") == "/data/s3/b"


def test_missing_output_in_the_input(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="report, metrics missing"):
        executor.place_outputs(STAGES["make"], {"data": {"artifacts": [{"uri": str(tmp_path / "data")}]}})


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.slow
@given(st.dictionaries(st.text(), JSON))
def test_finite_leaves_nothing_the_backend_refuses(value: dict[str, Any]) -> None:
    kept = finite(value)
    text = json.dumps(kept, allow_nan=False)

    def nulls(item: Any) -> bool:
        if isinstance(item, dict):
            return any(map(nulls, item.values()))
        return any(map(nulls, item)) if isinstance(item, list) else item is None

    assert not nulls(json.loads(text))


def run(stage: str, given_input: dict[str, Any] | str) -> subprocess.CompletedProcess[str]:
    text = given_input if isinstance(given_input, str) else json.dumps(given_input)
    command = [sys.executable, "-m", "tests.local.tiny_stages", stage, "--executor-input", text]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_users_error_is_a_message_and_exit_2(tmp_path: Path) -> None:
    rows = tmp_path / "data"
    rows.write_text('{"rows": [1, 2]}')
    values = {"log": str(tmp_path / "log"), "fail": "user"}
    done = run("learn", executor_input(tmp_path / "run", "learn", values, {"data": str(rows)}))
    assert done.returncode == 2
    assert "learn: rows.json: row 3: value: found 'x'; expected a number" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run/executor_output.json").exists()


def test_our_error_keeps_its_traceback_and_exit_1(tmp_path: Path) -> None:
    rows = tmp_path / "data"
    rows.write_text('{"rows": [1, 2]}')
    values = {"log": str(tmp_path / "log"), "fail": "crash"}
    done = run("learn", executor_input(tmp_path / "run", "learn", values, {"data": str(rows)}))
    assert done.returncode == 1
    assert "RuntimeError: broken invariant" in done.stderr


@pytest.mark.parametrize("text", ["{{$}}", "[]", "{}", ""])
def test_no_executor_input(text: str) -> None:
    done = run("make", text)
    assert done.returncode == 2 and "not an executor input" in done.stderr and "Traceback" not in done.stderr


def test_importing_the_door_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "deepspeed", "kfp", "boto3", "onnx"}
    code = f"import sys, llava.executor, llava.cli; print(*({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
