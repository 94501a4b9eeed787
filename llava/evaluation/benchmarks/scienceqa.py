"""ScienceQA (Lu et al. 2022): school questions with choices; LLaVA reports the part with images.

`questions_uri`: the official `problems.json` and `pid_splits.json`; images lie below `images_uri` as
`<split>/<id>/<file>`.
"""

from __future__ import annotations

from llava import storage
from llava.errors import DataError, RowError
from llava.evaluation import choices, question_files
from llava.evaluation.benchmark import Benchmark, Profile, Question

SPLIT = "test"


class ScienceQA(Benchmark):
    """Accuracy on the test questions that have an image, by subject."""

    name = "scienceqa"

    def read(self, uri: str) -> list[Question]:
        files = question_files.files(uri)
        problems = storage.read_json(files[0])
        if not isinstance(problems, dict) or not problems:
            raise DataError(f"{files[0]}: expected an object of problems by id, as ScienceQA ships it")
        chosen = storage.read_json(files[1])[SPLIT] if len(files) > 1 else list(problems)
        questions = []
        for index, key in enumerate(chosen):
            row = problems.get(key)
            if row is None:
                raise RowError(files[-1], index, SPLIT, key, f"an id that is in {files[0]}", problem="row-id")
            if not row.get("image"):
                continue
            options = [str(option) for option in row["choices"]]
            text = choices.ask(
                question_files.text(files[0], index, row, "question"), options, str(row.get("hint") or "")
            )
            image = f"{row.get('split', SPLIT)}/{key}/{row['image']}"
            letter = choices.LETTERS[int(row["answer"])]
            gold = {"letter": letter, "options": options}
            kind = str(row.get("subject") or "all")
            questions.append(Question(key, (image,), text, letter, kind, image, gold))
        if not questions:
            raise DataError(f"{files[0]}: no question with an image in it")
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        if profile == "llava-1.5":
            return float(choices.stated(answer) == question.gold["letter"])
        return float(choices.understood(answer, question.gold["options"]) == question.gold["letter"])
