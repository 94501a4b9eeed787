"""Wrong calls of every entry point: each ends with exit status 2 and lines that name what is wrong and what would be
right, before anything is read, trained or paid."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from llava import cli
from llava.pipelines.commands import main

PROJECT = Path(__file__).parents[2]
NEEDED = "-p expand_annotations_uri=captions.csv -p evaluate_questions_uri=q.jsonl"

# arguments (after the program's name), what the message must say
LLAVA: list[tuple[str, list[str]]] = [
    ("pretrian", ["No such command", "pretrain"]),
    ("pretrain --recip tiny", ["--recip", "--recipe"]),
    ("pretrain --recipe", ["--recipe", "argument"]),
    ("pretrain --data rows.json", ["nowhere to write", "--out"]),
    ("pretrain --out o", ["data: missing"]),
    ("pretrain --data none.json --out o", ["data: none.json: no such file"]),
    ("pretrain --data row.json --out o", ["did you mean rows.json?"]),
    ("pretrain --data captions.csv --out o", ["data: captions.csv", "llava expand --annotations-uri"]),
    ("pretrain --data photos --out o", ["data: photos"]),
    ("pretrain --data rows.json --recipe tinny --out o", ["recipe: found 'tinny'", "did you mean tiny?"]),
    ("pretrain --data rows.json --recipe gone.yaml --out o", ["gone.yaml"]),
    ("pretrain --data rows.json --recipe list.yaml --out o", ["list.yaml", "expected a mapping"]),
    ("pretrain --data rows.json --overrides {x --out o", ["overrides", "not JSON"]),
    ("pretrain --data rows.json --overrides [1] --out o", ["overrides", "JSON object"]),
    ('pretrain --data rows.json --overrides {"pretrain.max_step":1} --out o', ["max_step", "did you mean max_steps?"]),
    ('pretrain --data rows.json --overrides {"pretrain.epochs":-1} --out o', ["pretrain.epochs", "greater than 0"]),
    ("pretrain --data rows.json --images-uri fotos --out o", ["images_uri: fotos", "did you mean photos?"]),
    ("pretrain --data rows.json --images-uri rows.json --out o", ["images_uri", "found a file; expected a folder"]),
    ("pretrain --data rows.json --vision-tower photos --out o", ["vision_tower: photos: no config.json"]),
    ("pretrain --data rows.json --language-model nowhere --out o", ["language_model: nowhere", "hub id"]),
    ("pretrain --data rows.json --processes many --out o", ["processes: found 'many'", "auto"]),
    ("pretrain --data rows.json --profile -1 --out o", ["profile: found -1"]),
    ("pretrain --data rows.json --profile x --out o", ["--profile", "valid integer"]),
    ("pretrain --data rows.json --train-job {x --out o", ["train_job", "not JSON"]),
    ('pretrain --data rows.json --train-job {"gpus":8} --out o', ["train_job: gpus: unknown field"]),
    ("pretrain --data rows.json --out rows.json/x", ["rows.json", "is a file"]),
    ("pretrain --data rows.json --resume-uri gone --out o", ["resume_uri: gone"]),
    ("pretrain --data gopher://x --out o", ["data", "gopher://x", "s3://"]),
    ("finetune --data rows.json --out o", ["projector: missing"]),
    ("finetune --data rows.json --projector photos --out o", ["no projector_config.json", "pretrain wrote"]),
    ("finetune --data rows.json --projector wide --out o", ["text_width = 4096", "128"]),
    ("finetune --data rows.json --projector linear --out o", ["projector = 'linear'", "mlp2x_gelu"]),
    ("expand --out o", ["annotations_uri: missing"]),
    ("expand --annotations-uri none --out o", ["annotations_uri: none: no such file or folder"]),
    ("expand --annotations-uri captions.csv --kinds talk --out o", ["kinds: found 'talk'", "conversation"]),
    ("expand --annotations-uri captions.csv --kinds detials --out o", ["did you mean detail"]),
    ("expand --annotations-uri captions.csv --teacher openai --out o", ["teacher_model: empty"]),
    ("expand --annotations-uri captions.csv --teacher openai --teacher-model m --out o", ["OPENAI_API_KEY"]),
    ("expand --annotations-uri captions.csv --teacher chatgpt --out o", ["teacher", "'chatgpt'", "offline"]),
    ("expand --annotations-uri captions.csv --teacher-model m --out o", ["teacher: offline", "openai"]),
    ("expand --annotations-uri captions.csv --judge-sample 3 --out o", ["judge_sample", "offline"]),
    ("expand --annotations-uri captions.csv --gates-off none --out o", ["gates_off", "leakage"]),
    ("expand --annotations-uri captions.csv --mixture gone.yaml --out o", ["mixture: gone.yaml"]),
    ("expand --annotations-uri captions.csv --expansion-recipe cocoa --out o", ["cocoa", "coco"]),
    ("expand --annotations-uri captions.csv --extra-body [] --out o", ["extra_body", "JSON object"]),
    ("evaluate --model m --out o", ["questions_uri: missing"]),
    ("evaluate --model gone --questions-uri q.jsonl --out o", ["model: gone"]),
    ("evaluate --model photos --questions-uri q.jsonl --out o", ["model: photos: no config.json"]),
    ("evaluate --model photos --questions-uri q.json --out o", ["did you mean q.jsonl?"]),
    ("evaluate --model photos --questions-uri q.jsonl --benchmark popes --out o", ["benchmark: found 'popes'", "pope"]),
    ("evaluate --model photos --questions-uri notes.txt --out o", ["notes.txt", "JSON"]),
    ("export --model photos --precisions fp4 --out o", ["precisions: found 'fp4'", "fp16"]),
    ("export --model photos --opset 7 --out o", ["opset", "18"]),
    ("chat --model", ["--model"]),
    ("data chek", ["No such command", "check"]),
    ("data check --data gone.json", ["gone.json"]),
    ("plan --recipe llava-v1.5-7", ["did you mean llava-v1.5-7b"]),
]
PIPELINE: list[tuple[str, list[str]]] = [
    ("rum", ["No such command", "run"]),
    ("run --parms run.yaml", ["--parms", "--params"]),
    ("run --params gone.yaml", ["gone.yaml"]),
    ("run --params list.yaml", ["list.yaml", "mapping of parameters"]),
    ("run", ["expand_annotations_uri: missing", "evaluate_questions_uri: missing"]),
    ("run -p recipe", ["'recipe'", "NAME=VALUE"]),
    (f"run {NEEDED} -p recepie=tiny", ["recepie: no such parameter", "did you mean recipe?"]),
    (f"run {NEEDED} -p max_cost=3", ["did you mean expand_max_cost"]),
    (f"run {NEEDED} -p wholly_else=3", ["`python pipeline.py parameters` shows all"]),
    (f"run {NEEDED} -p expand_limit=few", ["expand_limit: found 'few'", "a whole number"]),
    (f"run {NEEDED} -p evaluate_blank_baseline=perhaps", ["evaluate_blank_baseline", "true or false"]),
    (f"run {NEEDED} -p recipe=tinny", ["recipe: found 'tinny'", "did you mean tiny?"]),
    (f"run {NEEDED} -p images_uri=fotos", ["images_uri: fotos", "did you mean photos?"]),
    (f"run {NEEDED} -p evaluate_benchmark=popes", ["evaluate: benchmark: found 'popes'"]),
    (f"run {NEEDED} -p expand_teacher=openai", ["expand: teacher_model: empty"]),
    (f"run {NEEDED} -p export_precisions=fp4", ["export: precisions: found 'fp4'"]),
    (f"run {NEEDED} -p expand_annotations_uri=gone", ["annotations_uri: gone"]),
    (f"run {NEEDED} --runner podman", ["--runner", "subprocess or docker"]),
    ("run --package from-evaluation", ["package: found 'from-evaluation'", "from-pretrain"]),
    ("run --package only-export", ["model_uri: missing"]),
    ("submit --package full", ["expand_annotations_uri: missing"]),
    (f"submit {NEEDED} -p evaluate_benchmark=popes", ["evaluate: benchmark: found 'popes'"]),
    (f"submit {NEEDED}", ["--host", "KF_PIPELINES_ENDPOINT"]),
    ("rerun --run x", ["--from and --only"]),
    ("rerun --run x --from train --local --root runs", ["--from: found 'train'", "finetune"]),
    ("rerun --run x --from finetune --local --root runs", ["run 'x'", "nothing of it"]),
    ("compile --only tune", ["--only: found 'tune'", "finetune"]),
    ("parameters --package half", ["package: found 'half'", "full"]),
]


def write_folder(folder: Path) -> None:
    """What lies in it: photographs, rows, captions, questions, and things that are none of these."""
    (folder / "photos").mkdir()
    row = {"id": "1", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    (folder / "rows.json").write_text(json.dumps([row]))
    (folder / "captions.csv").write_text("image,caption\ncat.jpg,A cat.\n")
    (folder / "q.jsonl").write_text('{"question": "What?", "image": "cat.jpg", "answer": "cat"}\n')
    (folder / "notes.txt").write_text("not a question\n")
    (folder / "list.yaml").write_text("- a\n- b\n")
    facts: dict[str, object] = {"projector": "mlp2x_gelu", "vision_width": 96, "text_width": 128}
    changes: dict[str, dict[str, object]] = {"wide": {"text_width": 4096}, "linear": {"projector": "linear"}}
    for name, changed in changes.items():
        (folder / name).mkdir()
        (folder / name / "projector_config.json").write_text(json.dumps(facts | changed))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new user's folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "KF_PIPELINES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    write_folder(tmp_path)
    return tmp_path


def said_by(program: str, arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    argv = arguments.split()
    if program == "llava":
        with pytest.raises(SystemExit) as ended:
            cli.main(argv)
        status = ended.value.code
    else:
        status = main(pipeline.build, argv)
    shown = capsys.readouterr()
    assert status == 2, f"{status}: {shown.out} {shown.err}"
    return shown.err


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [("llava", *call) for call in LLAVA] + [("pipeline", *call) for call in PIPELINE],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_a_wrong_call_says_what_would_be_right(
    program: str, arguments: str, said: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path for path in folder.rglob("*"))
    text = said_by(program, arguments, capsys)
    assert text.startswith(f"{program}: ") and "Traceback" not in text
    for words in said:
        assert words in text, text
    # A line a fault, and no more faults than there can be.
    lines = text.strip().splitlines()
    assert len(lines) <= 3 and all(len(line) < 600 for line in lines), text
    assert sorted(path for path in folder.rglob("*")) == before, "a refused call leaves nothing behind"


def test_there_are_at_least_sixty() -> None:
    assert len(LLAVA) + len(PIPELINE) >= 60


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "pipeline", "run", "-p", "recepie=tiny"],
        ["-m", "llava", "pretrain", "--data", "gone.json", "--out", "o"],
        ["-m", "llava", "export", "--model", "photos", "--precisions", "fp4", "--out", "o"],
    ],
)
def test_a_refusal_waits_for_no_heavy_library(command: list[str], folder: Path) -> None:
    """What takes seconds to import must not come before what can be known without it."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONPROFILEIMPORTTIME": "1", "COLUMNS": "200"}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "llava.suggestions" in imported
    assert not imported & {"torch", "transformers", "kfp", "kubernetes", "onnx", "openai"}


@pytest.mark.slow
def test_a_partial_install_names_its_extra(folder: Path) -> None:
    """With the libraries of an extra hidden, each command says which extra it lacks, in a line."""
    hide = (
        "import sys, importlib.abc\n"
        "class Hide(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in HIDDEN:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
    )
    shutil.copytree(PROJECT / "demo/base/clip", folder / "model")
    for hidden, call, extra in [
        ("rensa", "['expand', '--annotations-uri', 'captions.csv', '--out', 'o']", "expansion"),
        ("torch", "['pretrain', '--data', 'rows.json', '--out', 'o']", "train"),
        ("deepspeed", "['pretrain', '--data', 'rows.json', '--out', 'o']", "train"),
        ("onnxscript", "['export', '--model', 'model', '--out', 'o']", "export"),
        ("torch", "['chat', '--model', 'model', '--image', 'a.jpg', 'What?']", "train"),
    ]:
        code = (
            f"HIDDEN = {{{hidden!r}}}\n{hide}sys.meta_path.insert(0, Hide())\nfrom llava.cli import main\nmain({call})"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert f"llava-pipelines[{extra}]" in done.stderr and hidden in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
