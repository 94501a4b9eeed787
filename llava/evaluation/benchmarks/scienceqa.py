"""ScienceQA (Lu et al. 2022): school questions with choices; LLaVA reports the part with images.

Images are named `<id>/<file>` and stand below `images/test`. A prompt made from the official files is that of
LLaVA-1.5's own `llava_test_CQM-A.json`: `Context: <hint>` where there is a hint, the question, the lettered choices.
(The converter in the original's repository writes another one, with `Options: (A) ...`; the question file that the
published figures were made with does not have it.)
"""

from __future__ import annotations

from typing import Any

from llava import storage
from llava.errors import DataError, RowError
from llava.evaluation import choices, layouts, question_files
from llava.evaluation.benchmark import OPTION_LETTER, Benchmark, Profile, Question
from llava.evaluation.layouts import Form, Part

SPLIT = "test"
SOURCE = "data/scienceqa of lupantech/ScienceQA"
_PROBLEMS = Part("problems", SOURCE, ("problems.json",))
_SPLITS = Part("splits", SOURCE, ("pid_splits.json",))


class ScienceQA(Benchmark):
    """Accuracy on the test questions that have an image, by subject."""

    name = "scienceqa"
    max_new_tokens = 1024
    image_folders = ("images/test", "test", "images")
    forms = (
        Form("LLaVA-1.5's layout", (Part("asked", layouts.EVAL_ZIP, ("llava_test_CQM-A.json",)), _PROBLEMS, _SPLITS)),
        Form("the official release", (_PROBLEMS, _SPLITS)),
        Form("the official problems alone", (_PROBLEMS,)),
    )

    def read(self, uri: str) -> list[Question]:
        found = layouts.find(uri, self.forms)
        file = found["problems"]
        problems = question_files.by_id(file)
        chosen = self._chosen(found, problems)
        prompts = self._prompts(found["asked"]) if "asked" in found else None
        questions = []
        for index, key in enumerate(chosen):
            row = problems.get(key)
            if row is None:
                place = found.get("splits", file)
                raise RowError(place, index, SPLIT, key, f"an id that is in {file}", problem="row-id")
            if not row.get("image"):
                continue
            options = self._options(file, index, row)
            hint = question_files.given(file, index, row, "hint")
            if prompts is None:
                text = question_files.text(file, index, row, "question")
                text = choices.ask(text, options, f"Context: {hint}" if hint else "")
            else:
                text = question_files.gold_of(prompts, key, file, index, found["asked"])
            image = f"{key}/{question_files.text(file, index, row, 'image')}"
            letter = choices.LETTERS[int(row["answer"])]
            gold = {"letter": letter, "options": options}
            kind = question_files.given(file, index, row, "subject", "all")
            questions.append(Question(key, (image,), text, letter, kind, image, gold))
        if not questions:
            raise DataError(f"{file}: no question with an image in it")
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        if profile == "llava-1.5":
            return float(choices.stated(answer, question.gold["options"]) == question.gold["letter"])
        return float(choices.understood(answer, question.gold["options"]) == question.gold["letter"])

    @staticmethod
    def _chosen(found: dict[str, str], problems: dict[str, Any]) -> list[str]:
        if "splits" not in found:
            return list(problems)
        splits = storage.read_json(found["splits"])
        if not isinstance(splits, dict) or not isinstance(splits.get(SPLIT), list):
            raise DataError(f"{found['splits']}: expected an object with a list of ids under {SPLIT!r}")
        return [str(key) for key in splits[SPLIT]]

    @staticmethod
    def _options(file: str, index: int, row: dict[str, Any]) -> dict[str, str]:
        options, answer = row.get("choices"), row.get("answer")
        if not isinstance(options, list) or not 2 <= len(options) <= 5:
            raise RowError(file, index, "choices", options, "a list of two to five choices", problem="row-field")
        if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(options):
            raise RowError(file, index, "answer", answer, f"0 to {len(options) - 1}", problem="row-field")
        if not all(isinstance(option, (str, int, float)) for option in options):
            raise RowError(file, index, "choices", options, "a list of texts", problem="row-field")
        return choices.lettered([str(option) for option in options])

    @staticmethod
    def _prompts(file: str) -> dict[str, str]:
        prompts = {}
        for index, row in enumerate(question_files.rows(file)):
            turns = row.get("conversations")
            first = turns[0] if isinstance(turns, list) and turns else None
            if not isinstance(first, dict) or not isinstance(first.get("value"), str):
                raise RowError(file, index, "conversations", turns, "a list of turns", problem="row-field")
            key = question_files.text(file, index, row, "id")
            prompts[key] = first["value"].replace("<image>", "").strip() + OPTION_LETTER
        return prompts
