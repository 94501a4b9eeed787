"""The code blocks of README and docs run as they are typed, but for those that say what they need (`doc_blocks.NEEDS`).

A page's blocks run one after the other in a folder that looks like a checkout beside a person's own pictures and rows;
`runs` and a bucket are shared by all pages. Only training steps, and once precisions, are fewer than what is typed.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import boto3
import pytest
import yaml
from PIL import Image

from llava.cli import main
from tests.conftest import TinyWorld
from tests.doc_blocks import PROJECT, Block, blocks
from tests.hub_model import HubModel, hub_model
from tests.s3_server import S3Server, free_port, moto_server

__all__ = ["hub_model"]
FEWER = {
    "--steps 40": "--steps 2",
    'max_steps": 40': 'max_steps": 2',
    "--params rows.yaml": "--params rows.yaml -p export_precisions=fp32",
}
# Pages that others take up: a run's checkpoints are evaluated, its stages come from the cache.
FIRST = ["own-data.md", "README.md", "using.md"]


def write_photographs(folder: Path) -> None:
    """Thirty of them, of a camera's sizes, and `captions.csv`."""
    (folder / "photos").mkdir()
    lines = ["image,caption"]
    for number in range(1, 31):
        size = [(1600, 1200), (900, 1200), (640, 480)][number % 3]
        Image.effect_noise(size, 60).convert("RGB").save(folder / f"photos/IMG_{number:04d}.jpg")
        lines.append(f"IMG_{number:04d}.jpg,A photograph of {['a cat', 'a red car', 'two dogs'][number % 3]} outside.")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")


def write_rows(folder: Path) -> None:
    """Rows in the forms that docs/rows.md names, all of the same photographs."""
    rows = []
    for number in range(1, 31):
        question = {"from": "human", "value": "<image>\nWhat is in the picture?"}
        answer = {"from": "gpt", "value": f"Number {number}."}
        rows.append({"id": str(number), "image": f"IMG_{number:04d}.jpg", "conversations": [question, answer]})
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "questions.jsonl").write_text('{"question": "What is it?", "image": "IMG_0001.jpg", "answer": "cat"}\n')
    with tarfile.open(folder / "captions.tar", "w") as tar:
        for name, content in (("1.jpg", (folder / "photos/IMG_0001.jpg").read_bytes()), ("1.txt", b"A cat.")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (folder / "other").mkdir()
    for place in ("train.parquet", "other/rows.parquet"):
        call(f"data convert --data {folder}/rows.json --images {folder}/photos --to parquet --out {folder}/{place}")


def call(command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    assert not ended.value.code, command


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3Server]:
    with moto_server("bucket") as server:
        yield server


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person's photographs and rows."""
    folder = tmp_path_factory.mktemp("own")
    write_photographs(folder)
    write_rows(folder)
    for name in ("photo.jpg", "a.jpg", "b.jpg", "cat.jpg"):
        shutil.copy(folder / "photos/IMG_0003.jpg", folder / name)
    shutil.copy(PROJECT / "recipes/tiny.yaml", folder / "my.yaml")
    return folder


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, hub_model: HubModel, tiny_world: TinyWorld, bucket: S3Server
) -> Path:
    """`runs`, with what the demo and two evaluations leave; the demo's model in the bucket, too."""
    runs = tmp_path_factory.mktemp("shared") / "runs"
    (runs / "demo").mkdir(parents=True)
    for name, place in (("model", hub_model.model), ("projector", hub_model.projector), ("world", tiny_world.root)):
        shutil.copytree(place, runs / "demo" / name)
    pictures = runs / "demo/world/val2017"
    shutil.copy(min(pictures.glob("*.jpg")), pictures / "000000009001.jpg")  # the demo's first
    call(
        f"evaluate --model {hub_model.model} --benchmark custom --questions-uri {tiny_world.questions} --limit 6 "
        f"--images-uri {tiny_world.root} --no-blank-baseline --out {runs}/a"
    )
    shutil.copytree(runs / "a", runs / "b")
    client = boto3.client(
        "s3", endpoint_url=bucket.endpoint, region_name="us-east-1",
        aws_access_key_id=bucket.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=bucket.environment["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip
    for path in (path for path in hub_model.model.rglob("*") if path.is_file()):
        client.upload_file(str(path), bucket.bucket, f"model/{path.relative_to(hub_model.model).as_posix()}")
    return runs


def checkout(folder: Path, own: Path, runs: Path | None, world: TinyWorld | None) -> Path:
    """A folder as a person has it who works in a checkout."""
    shutil.copytree(own, folder, dirs_exist_ok=True)
    for path in PROJECT.iterdir():
        if not path.name.startswith(".") and path.name not in ("runs", "tests", "build", "dist"):
            (folder / path.name).symlink_to(path)
    (folder / ".venv").symlink_to(sys.prefix)
    if runs:
        (folder / "runs").symlink_to(runs)
    if world:
        (folder / "coco").symlink_to(world.root)
    return folder


def shell(text: str, folder: Path, bucket: S3Server) -> None:
    """Run a block as bash does for a person; a server in it is asked for its health and then stopped."""
    python = Path(sys.executable)
    environment = {**os.environ, **bucket.environment, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    port = free_port()
    serving = text.startswith("llava serve")
    command = f"exec {text.strip()} --port {port}" if serving else text
    with subprocess.Popen(
        ["bash", "-euc", command], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        while serving and process.poll() is None:
            try:
                with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    assert answer.status == 200
                process.send_signal(signal.SIGINT)
                break
            except OSError:
                time.sleep(0.2)
        said, _ = process.communicate()
    assert process.returncode in ((0, 130) if serving else (0,)), f"{text}\n{said[-3000:]}"
    assert not serving or f"{port}" in said


def run_block(block: Block, folder: Path, bucket: S3Server) -> None:
    text = block.text
    for typed, fewer in FEWER.items():
        text = text.replace(typed, fewer)
    if block.language == "python":
        (folder / "block.py").write_text(text)
        text = "python block.py"
    shell(text, folder, bucket)


COMMANDS = blocks("sh", "python")
LATER = sorted({block.page for block in COMMANDS} - set(FIRST))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", [*FIRST, *LATER])
def test_a_pages_commands_run_as_they_are_typed(
    page: str, own: Path, shared: Path, tiny_world: TinyWorld, bucket: S3Server, tmp_path: Path
) -> None:
    folder = checkout(tmp_path / "checkout", own, shared, tiny_world)
    for block in COMMANDS:
        if block.page == page:
            run_block(block, folder, bucket)
    if page == "own-data.md":
        for name in ("model/config.json", "onnx", "report.html", "summary.json"):
            assert (shared / "mine" / name).exists()


def test_rows_that_a_page_shows_are_rows(tmp_path: Path) -> None:
    """Every row of docs/rows.md, in its form, is the same record as the first of them but for its words."""
    from llava.data.records import read_records

    shown = [block for block in blocks("json") if block.page == "rows.md"]
    assert len(shown) >= 5
    for block in shown:
        (tmp_path / "row.json").write_text(f"[{block.text}]")
        file = read_records(str(tmp_path / "row.json"))
        assert not file.problems, (block, file.problems)
        [record] = file.records
        assert len(record.images) == 1 and record.turns[0].text.count("<image>") == 1, (block, record)
        assert [turn.role for turn in record.turns] == ["human", "gpt"]


def test_questions_that_a_page_shows_are_questions(tmp_path: Path) -> None:
    from llava.evaluation.benchmarks import get_benchmark

    [block] = [block for block in blocks("json") if block.page == "own-data.md"]
    (tmp_path / "questions.jsonl").write_text(block.text)
    [question] = get_benchmark("custom").read(str(tmp_path / "questions.jsonl"))
    assert question.images == ("IMG_0001.jpg",)


def test_captions_that_a_page_shows_are_captions(tmp_path: Path) -> None:
    from llava.expansion.sources.opening import open_corpus

    [block] = blocks("csv")
    (tmp_path / "captions.csv").write_text(block.text)
    expected = list(csv.DictReader(io.StringIO(block.text)))
    found = list(open_corpus(str(tmp_path / "captions.csv"), split="train", image_prefix=""))
    assert [(one.path, list(one.captions)) for one in found] == [(row["image"], [row["caption"]]) for row in expected]


def test_yaml_that_a_page_shows_is_read(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by what reads such a file: mixtures of training and of an expansion, a suite of benchmarks."""
    from llava.data.mixtures import read_mixture
    from llava.evaluation.suite import suite_of
    from llava.expansion.rows.mixture import load_mixture

    folder = checkout(tmp_path / "checkout", own, None, None)
    (folder / "gqa.json").write_text((folder / "rows.json").read_text())
    (folder / "counting.py").write_text(
        "from llava.evaluation.benchmarks import custom\nclass Counting(custom.Custom):\n    name = 'counting'\n"
    )
    monkeypatch.chdir(folder)
    for block in blocks("yaml"):
        (folder / "shown.yaml").write_text(block.text)
        written = yaml.safe_load(block.text)
        if block.page == "rows.md":
            read = read_mixture("shown.yaml")
            assert not read.problems and len(read.records) == 15 + 75 + 1
        elif block.page == "data.md":
            assert load_mixture("shown.yaml").parts[0].data == written["parts"][0]["data"]
        else:
            assert block.page == "evaluation.md", f"{block}: no test reads it"
            columns = suite_of("shown.yaml").benchmarks
            assert [column.model_dump(exclude_unset=True) for column in columns] == written["benchmarks"]
