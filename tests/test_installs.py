"""The wheel with some extras and without others: what is missing is said in one line that names what brings it."""

from __future__ import annotations

import re
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

from llava import extras
from tests.cli.test_wrong_calls import write_folder
from tests.installed import PROJECT, build_wheel, environment, install

EXPAND = "expand --annotations-uri captions.csv --images-uri photos --out o"
TEACH = f"{EXPAND} --teacher openai --teacher-model m"
PRETRAIN = "pretrain --data rows.json --images-uri photos --out o"
# extras that are installed; a command; the extras its refusal must name, or "" where nothing is missing
CALLS = [
    ("", EXPAND, "expansion"),
    ("", PRETRAIN, "train"),
    ("", "finetune --data rows.json --projector right --out o", "train"),
    ("", "evaluate --model model --questions-uri q.jsonl --images-uri photos --out o", "train"),
    ("", "export --model model --out o", "export"),
    ("", "chat --model model What?", "train"),
    ("", "serve --model model", "serve,train"),
    ("", "gguf --file weights.gguf --out o", "gguf,train"),
    ("", "plan --recipe tiny", "train"),
    ("", "data check --data rows.json --recipe tiny", "train"),
    ("", "data check --data table.parquet", "train"),
    ("", "data convert --data rows.json --to parquet --out o", "train"),
    ("", "data check --data rows.json", ""),
    ("", "plan --recipe llava-v1.5-7b --gpu h200", ""),
    ("", "init --images photos --annotations captions.csv --questions q.jsonl --out o", ""),
    ("expansion", EXPAND, ""),
    ("expansion", PRETRAIN, "train"),
    ("expansion", "data convert --data rows.json --to parquet --out o", ""),
    ("serve", "serve --model model", "train"),
    ("gguf", "gguf --file weights.gguf --out o", "train"),
    ("train", EXPAND, "expansion"),
    ("train", TEACH, "expansion"),
    ("train", "export --model model --out o", "export"),
    ("train", "serve --model model", "serve"),
    ("train", "gguf --file weights.gguf --out o", "gguf"),
    ("train", f"{PRETRAIN} --tracking wandb", "tracking"),
    ("export", PRETRAIN, "train"),
    ("export", TEACH, "expansion"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("a-user")
    write_folder(place)
    (place / "weights.gguf").write_bytes(b"GGUF" + bytes(20))
    (place / "table.parquet").write_bytes(b"PAR1" + bytes(20))
    (place / "model").mkdir()
    (place / "model/config.json").write_text("{}")
    (place / "right").mkdir()
    (place / "right/projector_config.json").write_text("{}")
    return place


@pytest.mark.slow
def test_the_wheel_carries_what_its_defaults_need(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    assert "llava/py.typed" in held
    for folder, inside in (("recipes", "llava/_recipes"), ("demo/base", "llava/_demo/base")):
        files = [path.relative_to(PROJECT / folder) for path in (PROJECT / folder).rglob("*") if path.is_file()]
        assert len(files) > 5 and {f"{inside}/{path.as_posix()}" for path in files} <= held
    sources = [path.relative_to(PROJECT) for path in (PROJECT / "llava").rglob("*") if path.is_file()]
    assert {path.as_posix() for path in sources if "__pycache__" not in path.parts} <= held


@pytest.mark.slow
@pytest.mark.parametrize("installed", list(dict.fromkeys(installed for installed, _, _ in CALLS)))
def test_a_partial_install_names_what_it_lacks(installed: str, wheel: Path, folder: Path, tmp_path: Path) -> None:
    programs = install(wheel, installed, tmp_path / "venv")
    shell = {key: value for key, value in environment(programs).items() if not key.startswith("OPENAI_")}
    calls = [(call, lacking) for held, call, lacking in CALLS if held == installed]
    for out, (call, lacking) in enumerate(calls):
        place = tmp_path / f"out-{out}"
        words = [str(place) if word == "o" else word for word in call.split()]
        done = subprocess.run(["llava", *words], cwd=folder, env=shell, capture_output=True, text=True, check=False)
        said = f"[{installed}] llava {call}: {done.returncode}: {done.stdout}{done.stderr}"
        if not lacking:
            assert done.returncode == 0, said
        else:
            assert done.returncode == 2, said
            [line] = done.stderr.strip().splitlines()
            assert f"pip install 'llava-pipelines[{lacking}]'" in line, said
            assert not place.exists(), said


def test_what_an_extra_brings_is_what_it_is_said_to_bring() -> None:
    """`llava.extras` beside pyproject.toml; a module is called as its distribution, but for these."""
    named = {"deepspeed": "deepspeed", "mlflow": "mlflow-skinny", "model_registry": "model-registry",
             "liger_kernel": "liger-kernel", "httpx2": "openai"}  # fmt: skip
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, modules in extras.EXTRAS.items():
        brought = {re.split(r"[^\w.-]", requirement)[0] for requirement in declared[extra]}
        assert {named.get(module, module) for module in modules} <= brought, extra
