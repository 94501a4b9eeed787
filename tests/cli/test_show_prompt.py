"""`llava evaluate show-prompt` of every benchmark, character by character: the twelve of LLaVA-1.5 against the lines of
their question files, the others against their prompts written out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llava import cli
from llava.evaluation.benchmarks import BENCHMARKS
from tests.evaluation.test_refer_layouts import refer_folder
from tests.stages.test_llava_table import TWELVE

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
QUESTION_FILES = {
    "vqav2": "llava_vqav2_mscoco_test-dev2015.jsonl", "gqa": "llava_gqa_testdev_balanced.jsonl",
    "vizwiz": "llava_test.jsonl", "textvqa": "llava_textvqa_val_v051_ocr.jsonl", "pope": "llava_pope_test.jsonl",
    "mme": "llava_mme.jsonl", "seed": "llava-seed-bench.jsonl", "mm-vet": "llava-mm-vet.jsonl",
    "llava-bench": "questions.jsonl",
}  # fmt: skip
# `model_vqa_science.py` and `model_vqa_mmbench.py` of haotian-liu/LLaVA, on the rows of the layouts.
BUILT = {
    "scienceqa": f"Which?\nA. a\nB. b{LETTER}",
    "mmbench": f"Which?\nA. red\nB. blue{LETTER}",
    "mmbench-cn": "Which?\nA. red\nB. blue\n请直接回答选项字母。",
}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"


def shown(name: str, folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        cli.main(["evaluate", "show-prompt", "--benchmark", name, "--questions-uri", str(folder), *more])
    assert done.value.code in (0, None)
    return capsys.readouterr().out


def texts(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = shown(name, folder, capsys, "--limit", "100", "--json").splitlines()
    return [json.loads(line)["text"] for line in lines]


@pytest.mark.parametrize("name", TWELVE)
def test_the_twelve_are_asked_as_their_question_files_ask(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    TWELVE[name][0](tmp_path / name)
    expected = [BUILT.get(name, "")]
    if name in QUESTION_FILES:
        lines = (tmp_path / name / QUESTION_FILES[name]).read_text().splitlines()
        expected = [json.loads(line)["text"] for line in lines]
    assert texts(name, tmp_path / name, capsys) == expected
    assert shown(name, tmp_path / name, capsys) == expected[0] + "\n"


def files(**texts: Any) -> Callable[[Path], None]:
    """Files by name, a text as it is and anything else as JSON."""

    def make(folder: Path) -> None:
        for name, value in texts.items():
            (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))

    return make


def table(file: str, **cells: str) -> Callable[[Path], None]:
    """A table of VLMEvalKit's kind with one row."""
    cells = {"index": "1", "image": PIXEL, "category": "c", **cells}
    text = "\t".join(cells) + "\n" + "\t".join(f'"{v}"' for v in cells.values()) + "\n"
    return files(**{file: text})


CAPTIONS = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "a dog"}]}
KARPATHY = {"images": [{"split": "test", "filename": "a.jpg", "imgid": 1, "sentences": [{"raw": "a dog"}]}]}
CHART = [{"imgname": "a.png", "query": "How many bars?", "label": "3"}]
HALLUSION = {
    "category": "VD", "subcategory": "chart", "set_id": "0", "figure_id": "1", "question_id": "0",
    "question": "Is it taller?", "gt_answer": "1", "filename": "./VD/chart/0_1.png",
}  # fmt: skip
OCR = {"image_path": "a.png", "question": "what is written in the image?", "answers": ["x"], "type": "Regular Text"}
PAGE = {"questionId": 1, "question": "What is the date?", "image": "documents/a.png", "answers": ["x"]}
CAPTION = "Provide a one-sentence caption for the provided image."
OTHERS: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "custom": (
        files(**{"q.json": [{"question": " As it stands. ", "image": "a.jpg"}]}),
        [" As it stands. "],
    ),
    # mix665k's words for a box of a sentence
    "refcoco": (
        refer_folder,
        [
            f"Please provide the bounding box coordinate of the region this sentence describes: {sentence}"
            for sentence in ("the red one", "left man")
        ],
    ),
    "captions": (files(**{"captions_val2014.json": CAPTIONS}), [CAPTION]),
    "nocaps": (files(**{"nocaps_val_4500_captions.json": CAPTIONS}), [CAPTION]),
    "flickr30k": (files(**{"dataset_flickr30k.json": KARPATHY}), [CAPTION]),
    # lmms-eval's prompts for LLaVA: `multi_choice_prompt` and `open_ended_prompt` of its MMMU
    "mmmu": (
        table("MMMU_DEV_VAL.tsv", question="What is <image 1>?", A="a", B="b", C="c", answer="B", split="validation"),
        [f"What is <image 1>?\nA. a\nB. b\nC. c\n{LETTER}"],
    ),
    "mmstar": (
        table("MMStar.tsv", question="Which?\nOptions: A: a, B: b", A="a", B="b", answer="A"),
        [f"Which?\nOptions: A: a, B: b{LETTER}"],
    ),
    "ai2d": (table("AI2D_TEST.tsv", question="Which?", A="x", B="y", answer="A"), [f"Which?\nA. x\nB. y{LETTER}"]),
    "chartqa": (
        files(**{"test_human.json": CHART, "test_augmented.json": CHART}), [f"How many bars?{SHORT}"] * 2
    ),
    "docvqa": (files(**{"val_v1.0.json": {"data": [PAGE]}}), [f"What is the date?{SHORT}"]),
    "ocrbench": (files(**{"OCRBench.json": [OCR]}), ["what is written in the image?"]),
    "hallusionbench": (files(**{"HallusionBench.json": [HALLUSION]}), [f"Is it taller?{SHORT}"]),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_the_others_are_asked_as_written_here(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    make, expected = OTHERS[name]
    make(tmp_path)
    place = tmp_path / "q.json" if name == "custom" else tmp_path
    assert texts(name, place, capsys) == expected
    assert shown(name, place, capsys) == expected[0] + "\n"


def test_no_benchmark_is_left_out() -> None:
    assert {benchmark.name for benchmark in BENCHMARKS} == {*TWELVE, *OTHERS}
