"""VQAv2 (Goyal et al. 2017): open questions on COCO images, ten answers each.

`questions_uri`: the official `v2_OpenEnded_*_questions.json` and `v2_mscoco_*_annotations.json`, in this order.
"""

from __future__ import annotations

from llava.errors import DataError, RowError
from llava.evaluation import question_files, vqa_score
from llava.evaluation.benchmark import SHORT_ANSWER, Benchmark, Profile, Question
from llava.evaluation.normalise import lenient


class VQAv2(Benchmark):
    """Score: VQA accuracy. `robust` also strips a sentence around the answer ("It is red.")."""

    name = "vqav2"

    def read(self, uri: str) -> list[Question]:
        files = question_files.files(uri)
        if len(files) != 2:
            raise DataError(f"questions_uri: found {len(files)} files; expected vqav2's questions and annotations")
        golds = {str(row["question_id"]): row for row in question_files.table(files[1], "annotations")}
        questions = []
        for index, row in enumerate(question_files.table(files[0], "questions")):
            key = question_files.text(files[0], index, row, "question_id")
            if key not in golds:
                raise RowError(files[0], index, "question_id", key, f"an id that is in {files[1]}", problem="row-id")
            gold = golds[key]
            answers = question_files.texts(files[1], index, gold, "answers")
            split = str(gold.get("data_subtype") or row.get("data_subtype") or "val2014")
            image = str(
                row.get("image")
                or f"COCO_{split}_{int(question_files.text(files[0], index, row, 'image_id')):012d}.jpg"
            )
            text = question_files.text(files[0], index, row, "question") + SHORT_ANSWER
            best = str(gold.get("multiple_choice_answer") or answers[0])
            kind = str(gold.get("answer_type") or "all")
            questions.append(Question(key, (image,), text, best, kind, image, {"answers": answers}))
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        if profile == "robust":
            answer = answer.strip().removesuffix(".")
            for opening in ("it is ", "it's ", "there are ", "there is ", "the answer is "):
                answer = answer[len(opening) :] if answer.lower().startswith(opening) else answer
            return vqa_score.accuracy(answer, question.gold["answers"], lenient)
        # The original normalises answers before it hands them to the official scorer.
        own = vqa_score.normalise_tokens(answer)
        return vqa_score.accuracy(own, question.gold["answers"], plain_if_unanimous=True)
