"""VQAv2's number of answers scored, kept and shown: what a process holds for one more answer, counted in bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FEW, MANY = 10_000, 100_000
MOST_BYTES = 8_000  # an answer of two contenders: its question, both answers, their scores, its place in the page
SCORE = """
import json, resource, sys
from llava.evaluation import presentation, run
from llava.evaluation.asking import Answered, Work
from llava.evaluation.benchmarks import get_benchmark
from llava.evaluation.suite import suite_of
from llava.telemetry import Telemetry

uri, folder = sys.argv[1:]
questions = get_benchmark("custom").read(uri)
work = Work("custom", "custom", uri, questions, folder, folder + "/predictions", 16)
answered = []
for name, said in (("finetuned", "red"), ("blank", "blue")):
    item = Answered("custom", name, name, "m", "abcd1234", ("id", "engine"), "own, float32", True, name == "blank", {})
    log = item.log(work)
    for start in range(0, len(questions), 4096):
        log.add({one.id: said for one in questions[start : start + 4096]})
    answered.append(item)
suite = suite_of("custom")
job = run.Job(suite, None, uri, folder, "llava-1.5", 16, 0, 1.0, 1, folder + "/predictions", folder + "/report.html")
with Telemetry("evaluate", "test") as telemetry:
    result = run._result(job, suite.benchmarks[0], work, answered, telemetry)
metrics = run._metrics(job, [result])
presentation.build_report(suite, [result], "llava-1.5", []).write(job.report)
print(json.dumps([metrics["accuracy"], metrics["gain_over_blank"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def scored(count: int, folder: Path) -> int:
    """Peak memory in bytes of a process that scores so many answers and writes their report."""
    folder.mkdir()
    questions = folder / "q.jsonl"
    with questions.open("w") as file:
        for k in range(count):
            row = {"id": f"q{k}", "question": f"What is the colour of thing {k}?", "answer": "red" if k % 4 else "blue"}
            file.write(json.dumps(row | {"cluster": f"i{k // 5}", "kind": f"kind {k % 8}"}) + "\n")
    command = [sys.executable, "-c", SCORE, str(questions), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    accuracy, gain, kilobytes = json.loads(done.stdout.splitlines()[-1])
    assert accuracy == pytest.approx(0.75) and gain == pytest.approx(0.5)
    assert (folder / "report.html").read_text().count("thing ") > count
    with (folder / "predictions/finetuned.jsonl").open() as file:
        assert sum(1 for _ in file) == count
    return int(kilobytes) * 1024


@pytest.mark.slow
def test_a_hundred_thousand_answers_cost_kilobytes_each(tmp_path: Path) -> None:
    few, many = scored(FEW, tmp_path / "few"), scored(MANY, tmp_path / "many")
    assert (many - few) / (MANY - FEW) < MOST_BYTES, (few, many)
