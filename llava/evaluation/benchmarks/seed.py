"""SEED-Bench (Li et al. 2023): multiple choice over twelve abilities, nine on images and three on videos.

Of a video the frame in the middle is asked about, as `extract_video_frames.py` of LLaVA-1.5's `eval.zip` cuts it. Where
those frames are not there, only the image part is asked and `accuracy` is that of images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llava import storage
from llava.errors import DataError, RowError
from llava.evaluation import choices, layouts, question_files, statistics, submission
from llava.evaluation.benchmark import Benchmark, Profile, Question, Scored
from llava.evaluation.layouts import Form, Part
from llava.evaluation.statistics import Interval
from llava.evaluation.submission import Submission

SOURCE = "https://huggingface.co/datasets/AILab-CVC/SEED-Bench"
SERVER = "SEED-Bench's leaderboard, https://huggingface.co/spaces/AILab-CVC/SEED-Bench_Leaderboard"
FRAMES = "SEED-Bench-video-image"
_ANSWERS = Part("questions", SOURCE, ("SEED-Bench.json",))


class Seed(Benchmark):
    """Accuracy: exactly the letter; `robust` also takes `A.`, `(A)` and an option's text."""

    name = "seed"
    image_folders = ()
    forms = (
        Form("LLaVA-1.5's layout", (Part("asked", layouts.EVAL_ZIP, ("llava-seed-bench.jsonl",)), _ANSWERS)),
        Form("the official release", (_ANSWERS,)),
    )

    def read(self, uri: str) -> list[Question]:
        found = layouts.find(uri, self.forms)
        file = found["questions"]
        data = storage.read_json(file)
        rows = question_files.table_of(file, data, "questions")
        types = data.get("question_type")
        abilities = {str(number): str(name) for name, number in types.items()} if isinstance(types, dict) else {}
        asked = self._asked(found["asked"]) if "asked" in found else None
        frames = storage.exists(storage.join(layouts.folder_of(uri), FRAMES))
        questions = []
        for index, row in enumerate(rows):
            kind = question_files.given(file, index, row, "data_type", "image")
            if kind != "image" and not frames:
                continue
            key = question_files.text(file, index, row, "question_id")
            options = {letter.upper(): question_files.text(file, index, row, f"choice_{letter}") for letter in "abcd"}
            letter = question_files.text(file, index, row, "answer")
            if letter not in options:
                raise RowError(file, index, "answer", letter, "A, B, C or D", problem="row-field")
            if asked is not None:
                image, text = question_files.gold_of(asked, key, file, index, found["asked"])
            else:
                text = choices.ask(question_files.text(file, index, row, "question"), options)
                image = self._image(file, index, row, kind)
            number = question_files.given(file, index, row, "question_type_id", "all")
            ability = abilities.get(number, number)
            gold = {"letter": letter, "options": options, "part": kind}
            questions.append(Question(key, (image,), text, letter, ability, image, gold))
        if not questions:
            raise DataError(f"{file}: no image questions in it, and no {FRAMES} beside it")
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        if profile == "llava-1.5":
            return float(choices.letter_only(answer) == question.gold["letter"])
        return float(choices.understood(answer, question.gold["options"]) == question.gold["letter"])

    def figures(self, scored: Sequence[Scored], profile: Profile) -> dict[str, Interval]:
        figures = super().figures(scored, profile)
        parts = dict.fromkeys(item.question.gold["part"] for item in scored)
        for part in parts if len(parts) > 1 else ():
            chosen = [item for item in scored if item.question.gold["part"] == part]
            scores = [item.scores[profile] for item in chosen]
            figures[f"accuracy_{part}"] = statistics.mean(scores, [item.question.cluster for item in chosen])
        return figures

    def submission(self, uri: str, questions: Sequence[Question], answers: Mapping[str, str]) -> Submission | None:
        rows = [{"question_id": question.id, "prediction": answers.get(question.id, "")} for question in questions]
        return submission.json_lines("seed-bench.jsonl", SERVER, rows)

    @staticmethod
    def _asked(file: str) -> dict[str, tuple[str, str]]:
        return {str(row["question_id"]): (row["image"], row["text"]) for _, row in question_files.asked(file)}

    @staticmethod
    def _image(file: str, index: int, row: Mapping[str, Any], kind: str) -> str:
        if kind == "image":
            return f"SEED-Bench-image/{question_files.text(file, index, row, 'data_id')}"
        ability = question_files.text(file, index, row, "question_type_id")
        return f"{FRAMES}/{ability}_{question_files.text(file, index, row, 'question_id')}.png"
