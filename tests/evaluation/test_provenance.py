"""Links from an evaluation's report back through the stages: on a disk, in a bucket, from within a pod."""

from __future__ import annotations

from pathlib import Path

from llava import storage
from llava.evaluation.provenance import facts
from llava.launcher_paths import RECORD_NAME
from llava.manifest import Manifest, write_manifest
from tests.s3_server import S3Server


def run(root: str) -> dict[str, str]:
    """Two executions as they lie below a pipeline root: pretrain made a projector, finetune a model of it."""
    projector, model = storage.join(root, "pretrain/7/projector"), storage.join(root, "finetune/8/model")
    write_manifest(projector, Manifest(kind="projector", stage="pretrain", data_hash="abc"))
    parents = {"projector": projector, "data": "https://host/rows.json"}
    write_manifest(model, Manifest(kind="model", stage="finetune", parents=parents))
    for stage, artifact in (("pretrain", projector), ("finetune", model)):
        folder = artifact.rpartition("/")[0]
        report = storage.join(folder, "report")
        storage.write_text(report, "<!doctype html>")
        storage.write_json(storage.join(folder, RECORD_NAME), {"stage": stage, "outputs": {"report": report}})
    return {"projector": projector, "model": model}


def links(model: str, report: str) -> dict[str, str]:
    """Name of each line -> its address, without the indent."""
    return {name.lstrip("· "): address for name, _, address in facts({"fine-tuned": model}, {}, "e", report, {})}


REACHED = {
    "fine-tuned": "../../finetune/8/model",
    "report of finetune": "../../finetune/8/report",
    "projector": "../../pretrain/7/projector",
    "report of pretrain": "../../pretrain/7/report",
    "data": "https://host/rows.json",
}


def test_every_stage_is_reached_on_a_disk(tmp_path: Path) -> None:
    made = run(str(tmp_path))
    found = links(made["model"], str(tmp_path / "evaluate/9/report"))
    assert {name: found[name] for name in REACHED} == REACHED
    assert (tmp_path / "evaluate/9" / found["report of pretrain"]).resolve().is_file()


def test_every_stage_is_reached_in_a_bucket(rclone_s3: S3Server) -> None:
    root = f"{rclone_s3.uri}/run"
    made = run(root)
    found = links(made["model"], f"{root}/evaluate/9/report")
    assert {name: found[name] for name in REACHED} == REACHED
    # In a pod the report is written to the launcher's copy, and the model may be read from one.
    mounted = f"/s3/{root.removeprefix('s3://')}/evaluate/9/report"
    assert links(made["model"], mounted) == found
    elsewhere = links(made["model"], "s3://another-bucket/evaluate/9/report")
    assert elsewhere["report of finetune"] == "" and elsewhere["data"] == REACHED["data"]
    lines = facts({"fine-tuned": made["model"]}, {}, "e", "s3://another-bucket/evaluate/9/report", {})
    assert f"{root}/finetune/8/report" in [value for _, value, _ in lines]  # to be copied, where no link can be


def test_a_stage_run_by_hand_and_a_name_with_blanks(tmp_path: Path) -> None:
    model = tmp_path / "my run #1/model"
    write_manifest(str(model), Manifest(kind="model", stage="finetune"))
    (tmp_path / "my run #1/report.html").write_text("x")
    found = links(str(model), str(tmp_path / "eval/report.html"))
    assert found["report of finetune"] == "../my%20run%20%231/report.html"
    (tmp_path / "my run #1" / RECORD_NAME).write_text("[1, 2")  # a record nobody can read hides nothing else
    assert "report of finetune" not in links(str(model), str(tmp_path / "eval/report.html"))
