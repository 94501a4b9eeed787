"""`make audit`: what it looks for it finds, and an acceptance ends on its day."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tools import audit

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TODAY = datetime.date(2026, 6, 1)
TORCH = {"package": "torch", "fixed": "2.6.0", "id": "CVE-2025-32434", "about": "weights_only runs code"}


def policy(*accepted: dict[str, object]) -> audit.Policy:
    return audit.Policy.model_validate({"advisories": [TORCH], "accepted": list(accepted)})


@pytest.mark.parametrize(
    ("version", "weak"),
    [("2.5.1", True), ("2.5.1+cpu", True), ("2.6.0rc1", True), ("2.6.0", False), ("2.6.0+cpu", False), ("2.13", False)],
)
def test_versions_are_compared_as_versions(version: str, weak: bool) -> None:
    assert bool(audit.weak(policy(), "a.txt", {"torch": version}, TODAY)) is weak


@pytest.mark.parametrize(("until", "weak"), [("2026-06-01", False), ("2026-05-31", True)])
def test_an_acceptance_ends_on_its_day(until: str, weak: bool) -> None:
    accepted: dict[str, object] = {"id": TORCH["id"], "files": ["a.txt"], "reason": "nothing is loaded", "until": until}
    assert bool(audit.weak(policy(accepted), "a.txt", {"torch": "2.5.1"}, TODAY)) is weak
    assert audit.weak(policy(accepted), "b.txt", {"torch": "2.5.1"}, TODAY), "it is accepted in the other file alone"


def test_pins_are_read_from_a_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(
        "Jinja2==3.1.5 \\\n    --hash=sha256:aa\nhuggingface_hub==1.0.0 \\\n    --hash=sha256:bb\nloose==1.0\n"
    )
    assert audit.pins(lock) == {"jinja2": "3.1.5", "huggingface-hub": "1.0.0", "loose": "1.0"}
    assert audit.unpinned(lock) == ["loose==1.0"]


def test_every_package_of_an_image_has_a_hash() -> None:
    for lock in audit.LOCKS.glob("*.txt"):
        assert audit.unpinned(lock) == [] and len(audit.pins(lock)) > 20


def test_no_lock_holds_a_version_with_a_known_weakness() -> None:
    ours = audit.Policy.model_validate(yaml.safe_load(audit.ADVISORIES.read_text()))
    assert len(ours.advisories) > 10
    for path in (ROOT / "constraints.txt", *audit.LOCKS.glob("*.txt")):
        name = path.relative_to(ROOT).as_posix()
        assert audit.weak(ours, name, audit.pins(path), datetime.date.today()) == []


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("bandit", "import pickle\n\n\ndef load(data: bytes) -> object:\n    return pickle.loads(data)\n"),
        ("bandit", "import subprocess\n\nsubprocess.run('ls ' + input(), shell=True)\n"),
        ("detect-secrets-hook", "aws_access_key = 'AKIA" + "IOSFODNN7EXAMPL1'\n"),
        ("detect-secrets-hook", "-----BEGIN RSA PRIVATE" + " KEY-----\n"),
    ],
)
def test_the_tools_find_what_they_are_for(program: str, text: str, tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(text)
    given = {"bandit": ["-c", "pyproject.toml"], "detect-secrets-hook": ["--baseline", ".secrets.baseline"]}[program]
    done = subprocess.run([str(BIN / program), *given, str(planted)], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 1, done.stdout


@pytest.mark.slow
def test_sboms_name_what_is_locked(tmp_path: Path) -> None:
    made = {path.name: path for path in audit.write_sboms(tmp_path)}
    assert len(made) == len(list(audit.LOCKS.glob("*.txt")))
    document = json.loads(made["light.cdx.json"].read_text())
    found = {component["name"].lower().replace("_", "-"): component["version"] for component in document["components"]}
    assert found == audit.pins(audit.LOCKS / "light.txt")
    assert all(component.get("hashes") or component.get("externalReferences") for component in document["components"])
