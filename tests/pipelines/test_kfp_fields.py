"""What a version of Kubeflow does not know of a package: by the messages of the kfp that is installed here."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from llava.pipelines.graph import package_names
from tests.pipelines.golden import FOLDER
from tools.kfp_fields import main


def test_the_pinned_kfp_knows_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(FOLDER / f"{name}.yaml") for name in package_names()]) == 0
    assert capsys.readouterr().out.split("\n")[:2] == [
        "  the API server refuses: nothing",
        "  the driver drops: nothing",
    ]


def test_what_is_not_known_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, platform = yaml.safe_load_all((FOLDER / "only-export.yaml").read_text())
    spec["root"]["dag"]["tasks"]["export"]["retryPolicy"]["policy"] = "Always"
    executor = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-export"]
    executor["secretAsEnv"][0]["keyToEnv"][0]["mode"] = "0400"
    package = tmp_path / "package.yaml"
    package.write_text(yaml.safe_dump_all([spec, platform]))
    assert main([str(package)]) == 1
    said = capsys.readouterr().out
    assert "refuses: root.dag.tasks.*.retryPolicy.policy" in said
    assert "drops: secretAsEnv.keyToEnv.mode" in said
