"""Local runs: kfp orchestrates and caches, our processes do the work, artifacts lie where asked."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from llava import storage
from llava.errors import SettingsError
from llava.local.run import LocalOptions, RunFailed, RunRecord, code_fingerprint, run_package
from llava.pipelines.values import check_arguments
from tests.local.tiny_pipeline import compile_only_judge, compile_tiny

pytestmark = pytest.mark.usefixtures("still_code")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_tiny(tmp_path_factory.mktemp("package"))


@pytest.fixture
def still_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that nobody edits while a test compares two runs."""
    monkeypatch.setattr("llava.local.run.code_fingerprint", lambda salt="": f"code{salt}")


def go(package: Path, folder: Path, *, options: dict[str, Any] | None = None, **arguments: Any) -> RunRecord:
    """Run with bookkeeping in `folder/root` and the log of what really ran in `folder/log`."""
    folder.mkdir(exist_ok=True)
    return run_package(
        package, {"log": str(folder / "log"), **arguments}, LocalOptions(root=folder / "root", **(options or {}))
    )


def ran(folder: Path) -> list[str]:
    """Names of the stages that really ran since the last call."""
    log = folder / "log"
    names = log.read_text().split() if log.exists() else []
    log.write_text("")
    return names


@pytest.mark.slow
def test_a_run_leaves_artifacts_and_a_record(package: Path, tmp_path: Path) -> None:
    record = go(package, tmp_path)
    assert ran(tmp_path) == record.ran == ["make", "learn", "judge"]
    assert record.outputs["judge_metrics"].metadata["grade"] == 2.25
    assert record.outputs["report"].uri.endswith("/make/report.html")
    assert not any(output.cached for output in record.outputs.values())
    for output in record.outputs.values():
        assert Path(output.uri).exists()
    assert json.loads((tmp_path / "root" / record.run / "run.json").read_text()) == record.model_dump(mode="json")


@pytest.mark.slow
def test_a_second_run_runs_nothing_and_finds_the_same(package: Path, tmp_path: Path) -> None:
    first = go(package, tmp_path)
    ran(tmp_path)
    second = go(package, tmp_path)
    assert ran(tmp_path) == second.ran == []
    assert {k: v.uri for k, v in second.outputs.items()} == {k: v.uri for k, v in first.outputs.items()}
    assert all(output.cached for output in second.outputs.values())


@pytest.mark.slow
def test_a_changed_setting_reruns_its_stage_and_those_after_it(package: Path, tmp_path: Path) -> None:
    go(package, tmp_path)
    ran(tmp_path)
    changed = go(package, tmp_path, rate=0.7)
    assert ran(tmp_path) == ["learn", "judge"]
    assert changed.outputs["data"].cached and not changed.outputs["model"].cached
    assert changed.outputs["judge_metrics"].metadata["grade"] == pytest.approx(3.15)


@pytest.mark.slow
def test_no_cache_and_another_salt_rerun_everything(package: Path, tmp_path: Path) -> None:
    go(package, tmp_path)
    go(package, tmp_path, options={"cache": False})
    ran(tmp_path)
    go(package, tmp_path, options={"salt": "other data"})
    assert ran(tmp_path) == ["make", "learn", "judge"]


@pytest.mark.slow
def test_a_lost_artifact_is_made_again(package: Path, tmp_path: Path) -> None:
    first = go(package, tmp_path)
    ran(tmp_path)
    storage.delete(first.outputs["model"].uri)
    go(package, tmp_path)
    assert ran(tmp_path)[0] == "learn"


def test_changed_code_is_another_cache_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "llava"
    package.mkdir()
    (package / "a.py").write_text("x = 1")
    monkeypatch.setattr("llava.local.run.resources.files", lambda name: package)
    before = code_fingerprint()
    (package / "a.pyc").write_text("compiled")
    assert code_fingerprint() == before != code_fingerprint("salt")
    (package / "a.py").write_text("x = 2")
    assert code_fingerprint() != before


@pytest.mark.slow
def test_a_failed_stage_stops_the_run_and_is_not_retried(
    package: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RunFailed, match="'learn' failed"):
        go(package, tmp_path, fail="user")
    assert ran(tmp_path) == ["make", "learn"], "the package retries on a cluster, where nobody watches"
    said = capfd.readouterr().err
    assert "learn: rows.json: row 3: value: found 'x'; expected a number" in said
    assert "[2/3] learn" in said and "failed with exit status 2" in said
    with pytest.raises(RunFailed):
        go(package, tmp_path, fail="user")
    assert ran(tmp_path) == ["learn"], "what had succeeded comes from the cache"
    said = capfd.readouterr().err
    assert "learn: an earlier attempt did not end; resuming from what it left" in said
    left = re.search(r"learn: to start it afresh, delete what the earlier attempt left: (.*)", said)
    assert left is not None and Path(left[1]).is_dir()
    other = go(package, tmp_path)
    assert ran(tmp_path) == other.ran == ["learn", "judge"], "with other settings it is another task"
    assert not other.outputs["model"].uri.startswith(left[1])


@pytest.mark.slow
def test_a_task_that_failed_goes_on_in_its_first_places(package: Path, tmp_path: Path, s3_root: str) -> None:
    """So that a training stage finds its checkpoints; its outputs count as this run's all the same."""
    for number, artifacts in enumerate((None, s3_root)):
        broken = tmp_path / f"broken-{number}"
        broken.write_text(f'#!/bin/sh\ncase "$*" in *" learn "*) exit 7;; esac\nexec "{sys.executable}" "$@"\n')
        broken.chmod(0o755)
        folder = tmp_path / str(number)
        with pytest.raises(RunFailed):
            go(package, folder, options={"artifacts": artifacts, "interpreters": {"tiny": str(broken)}})
        mended = go(package, folder, options={"artifacts": artifacts})
        assert mended.ran == ["learn", "judge"]
        assert f"/{mended.run}/" not in mended.outputs["model"].uri and not mended.outputs["model"].cached
        assert f"/{mended.run}/" in mended.outputs["judge_metrics"].uri
        assert go(package, folder, options={"artifacts": artifacts}).outputs["model"].uri == mended.outputs["model"].uri


def test_the_stages_output_is_live_and_kfps_goes_to_a_file(
    package: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    go(package, tmp_path)
    out, err = capfd.readouterr()
    assert "learn: step 1/2" in err and "variable carried" in out
    assert "INFO" not in out + err
    assert "finished with status" in (tmp_path / "root/kfp.log").read_text()


def test_an_image_maps_to_an_interpreter(package: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "python-of-the-image"
    other.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    other.chmod(0o755)
    record = go(package, tmp_path / "run", options={"interpreters": {"tiny:": str(other), "t": "/nowhere"}})
    assert record.ran == ["make", "learn", "judge"]


@pytest.mark.slow
def test_an_earlier_runs_artifact_by_uri(package: Path, tmp_path: Path) -> None:
    first = go(package, tmp_path)
    ran(tmp_path)
    alone = go(compile_only_judge(tmp_path), tmp_path, model_uri=first.outputs["model"].uri)
    assert ran(tmp_path) == ["judge"]
    assert alone.outputs["judge_metrics"].metadata["grade"] == 2.25


@pytest.mark.slow
def test_artifacts_in_an_object_store(package: Path, tmp_path: Path, s3_root: str) -> None:
    first = go(package, tmp_path, options={"artifacts": s3_root})
    assert ran(tmp_path) == ["make", "learn", "judge"]
    assert all(output.uri.startswith(f"{s3_root}/{first.run}/") for output in first.outputs.values())
    assert storage.read_json(storage.join(first.outputs["model"].uri, "weights.json")) == 2.25
    assert storage.read_text(first.outputs["report"].uri).startswith("<html>")
    assert storage.read_json(storage.join(s3_root, first.run, "run.json"))["run"] == first.run
    assert go(package, tmp_path, options={"artifacts": s3_root}).ran == []
    # kfp trusts remote entries of its cache; we look.
    storage.delete(storage.join(first.outputs["model"].uri, "weights.json"))
    assert go(package, tmp_path, options={"artifacts": s3_root}).ran[0] == "learn"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"log": "l", "rowz": 1}, "rowz: no such parameter; did you mean rows?"),
        ({}, "log: missing; it is required"),
        ({"log": "l", "rows": "many"}, "rows: found 'many'; expected a whole number"),
        ({"log": "l", "rate": "fast"}, "rate: found 'fast'; expected a number"),
    ],
)
def test_wrong_arguments_are_named_before_anything_runs(
    package: Path, tmp_path: Path, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        run_package(package, arguments, LocalOptions(root=tmp_path / "root"))
    assert said in str(caught.value)
    assert not (tmp_path / "root").exists()


def test_text_becomes_what_the_package_declares() -> None:
    kinds = {"a": "BOOLEAN", "b": "LIST", "c": "STRUCT", "d": "NUMBER_INTEGER", "e": "NUMBER_DOUBLE", "f": "STRING"}
    spec = {
        "root": {"inputDefinitions": {"parameters": {name: {"parameterType": kind} for name, kind in kinds.items()}}}
    }
    given = {"a": "false", "b": "[1]", "c": '{"k": "v"}', "d": "3", "e": "1e-3", "f": "8"}
    assert check_arguments(spec, given) == {"a": False, "b": [1], "c": {"k": "v"}, "d": 3, "e": 0.001, "f": "8"}
    for name, text in {"a": "perhaps", "b": "{}", "c": "[]"}.items():
        with pytest.raises(SettingsError, match=f"{name}: found"):
            check_arguments(spec, {**given, name: text})


@pytest.mark.slow
def test_an_interrupted_run_takes_its_stage_along(package: Path, tmp_path: Path) -> None:
    """Ctrl-C reaches the stage, and nothing is left running."""
    sleeper = tmp_path / "sleeper"
    pid_file = tmp_path / "pid"
    sleeper.write_text(f'#!/bin/sh\necho $$ > "{pid_file}.new"; mv "{pid_file}.new" "{pid_file}"\nexec sleep 600\n')
    sleeper.chmod(0o755)
    code = (
        "from pathlib import Path; from llava.local.run import *\n"
        f"run_package(Path({str(package)!r}), {{'log': 'l'}}, "
        f"LocalOptions(root=Path({str(tmp_path / 'root')!r}), interpreters={{'tiny': {str(sleeper)!r}}}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            if pid_file.exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        pid = int(pid_file.read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) != 0
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_the_package_itself_stays_as_compiled(package: Path, tmp_path: Path) -> None:
    before = package.read_text()
    go(package, tmp_path)
    assert package.read_text() == before
    assert "retryPolicy" in yaml.safe_load(before)["root"]["dag"]["tasks"]["learn"]
