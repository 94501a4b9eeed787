"""Stock lmms-eval on a saved directory, with a local task: the same questions, the same answers as `llava evaluate`.

    python -m venv PEER && PEER/bin/pip install lmms-eval==0.7.3 decord
    python -m benchmarks.lmms_eval --python PEER/bin/python --model runs/demo/.../finetune/model

PEER is an environment of its own. lmms-eval's `llava_hf` loads the directory as it is, with the chat template saved
beside it. The task is a folder of two files written here (YAML and prompts), so nothing comes from a hub. Both sides
answer greedily in float32 on CPU; answers must be equal. The counts, and each answer that differs, go to
benchmarks/results/lmms_eval.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "lmms_eval.json"
TASK = "llava_local"
YAML = """\
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.image
doc_to_text: !function utils.text
doc_to_target: answer
generation_kwargs: {{max_new_tokens: {tokens}, temperature: 0, do_sample: false}}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  - version: 0.0
"""
UTILS = """\
from PIL import Image


def image(doc):
    return [Image.open(doc["path"]).convert("RGB")]


def text(doc, kwargs=None):
    return doc["question"]
"""
ASKS = (
    "How many shapes are there?\nAnswer the question using a single word or phrase.",
    "Is there a red circle?\nAnswer the question using a single word or phrase.",
    "Describe the image in one sentence.",
)


def questions(folder: Path, count: int) -> list[dict[str, str]]:
    """Generated scenes, each with the next of `ASKS`."""
    import numpy as np

    from demo.scenes import render, sample_scene

    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        name = f"{number}.png"
        render(sample_scene(rng), rng).save(folder / name)
        ask = ASKS[number % len(ASKS)]
        rows.append({"question_id": str(number), "image": name, "question": ask, "answer": "-"})
    return rows


def ours(model: str, folder: Path, tokens: int) -> dict[str, str]:
    """Answers of `llava evaluate`, by id."""
    from llava.stages.evaluate import Inputs, Outputs, Settings, run

    out = folder / "ours"
    settings = Settings(
        benchmark="custom",
        questions_uri=str(folder / "questions.jsonl"),
        images_uri=str(folder),
        blank_baseline=False,
        max_new_tokens=tokens,
        dtype="float32",
    )
    outputs = Outputs(predictions=str(out), report=str(folder / "report.html"), metrics=str(folder / "metrics"))
    run(settings, Inputs(model=model, projector=None), outputs)
    rows = map(json.loads, (out / "finetuned.jsonl").read_text().splitlines())
    return {row["id"]: row["answer"] for row in rows}


def theirs(python: str, model: str, folder: Path, rows: list[dict[str, str]], tokens: int) -> dict[str, str]:
    """Answers of lmms-eval, by id."""
    task = folder / "task"
    task.mkdir()
    lines = [json.dumps(row | {"path": str(folder / row["image"])}) + "\n" for row in rows]
    (folder / "docs.jsonl").write_text("".join(lines))
    (task / f"{TASK}.yaml").write_text(YAML.format(task=TASK, file=folder / "docs.jsonl", tokens=tokens))
    (task / "utils.py").write_text(UTILS)
    command = [python, "-m", "lmms_eval", "--model", "llava_hf", "--batch_size", "1", "--tasks", TASK]
    command += [
        "--model_args",
        f"pretrained={model},device=cpu,device_map=cpu,dtype=float32",
        "--include_path",
        str(task),
    ]
    command += ["--log_samples", "--output_path", str(folder / "theirs")]
    environment = {**os.environ, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"HF_DATASETS_OFFLINE": "1", "OPENAI_API_KEY": "unused"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    files = sorted((folder / "theirs").rglob(f"*samples*{TASK}.jsonl"))
    if done.returncode or not files:
        raise SystemExit(f"lmms-eval failed ({done.returncode}):\n{(done.stdout + done.stderr)[-4000:]}")
    found = map(json.loads, files[-1].read_text().splitlines())
    return {rows[int(row["doc_id"])]["question_id"]: _first(row["filtered_resps"]) for row in found}


def _first(said: object) -> str:
    while isinstance(said, list):
        said = said[0] if said else ""
    return str(said)


def main() -> None:
    """Compare, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="Python of an environment with lmms-eval")
    parser.add_argument("--model", required=True, help="a saved model directory")
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--max-new-tokens", type=int, default=24)
    chosen = parser.parse_args()
    model = str(Path(chosen.model).resolve())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = questions(folder, chosen.questions)
        (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        own = ours(model, folder, chosen.max_new_tokens)
        peer = theirs(chosen.python, model, folder, rows, chosen.max_new_tokens)
    differ = [
        {"id": key, "ours": own[key], "lmms_eval": peer.get(key)}
        for key in own
        if own[key].strip() != (peer.get(key) or "").strip()
    ]
    asked = [chosen.python, "-c", "from importlib.metadata import version; print(version('lmms_eval'))"]
    result = {
        "questions": len(rows),
        "equal": len(rows) - len(differ),
        "distinct_answers": len(set(own.values())),
        "different": differ[:20],
        "lmms_eval": subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip(),
        "transformers": version("transformers"),
        "torch": version("torch"),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "max_new_tokens": chosen.max_new_tokens,
    }
    RESULTS.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    print(json.dumps(result, indent=2, ensure_ascii=False))
    raise SystemExit(bool(differ))


if __name__ == "__main__":
    main()
