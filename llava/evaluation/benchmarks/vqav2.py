"""VQAv2 (Goyal et al. 2017): open questions on COCO images, ten answers each.

LLaVA-1.5's figure is that of test-dev, which only the challenge's server can score: the stage writes the file for it.
The validation split is scored here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llava.evaluation import layouts, question_files, submission, vqa_score
from llava.evaluation.benchmark import SHORT_ANSWER, Benchmark, Profile, Question
from llava.evaluation.layouts import Form, Part
from llava.evaluation.normalise import lenient
from llava.evaluation.submission import Submission

SOURCE = "https://visualqa.org/download.html"
SERVER = "EvalAI, challenge 830 (VQA), phase test-dev"
WHOLE = "llava_vqav2_mscoco_test2015.jsonl"
_OPENINGS = ("it is ", "it's ", "there are ", "there is ", "the answer is ")


class VQAv2(Benchmark):
    """Score: VQA accuracy. `robust` also strips a sentence around the answer ("It is red.")."""

    name = "vqav2"
    image_folders = ("test2015", "val2014", "images")
    forms = (
        Form(
            "LLaVA-1.5's question file for test-dev",
            (Part("asked", layouts.EVAL_ZIP, ("llava_vqav2_mscoco_test-dev2015.jsonl",)),),
        ),
        Form(
            "the official validation split",
            (
                Part("questions", SOURCE, ("v2_OpenEnded_mscoco_val2014_questions.json",)),
                Part("annotations", SOURCE, ("v2_mscoco_val2014_annotations.json",)),
            ),
        ),
        Form(
            "the official test-dev questions",
            (Part("open", SOURCE, ("v2_OpenEnded_mscoco_test-dev2015_questions.json",)),),
        ),
    )

    def read(self, uri: str) -> list[Question]:
        found = layouts.find(uri, self.forms)
        if "asked" in found:
            file = found["asked"]
            return [
                Question(
                    str(question_files.whole(file, index, row, "question_id")),
                    (row["image"],),
                    row["text"],
                    "",
                    "all",
                    row["image"],
                    known=False,
                )
                for index, row in question_files.asked(file)
            ]
        file = found.get("questions") or found["open"]
        labels = found.get("annotations")
        rows = question_files.table(labels, "annotations") if labels else []
        golds = {str(row.get("question_id")): (index, row) for index, row in enumerate(rows)}
        questions = []
        for index, row in enumerate(question_files.table(file, "questions")):
            key = str(question_files.whole(file, index, row, "question_id"))
            text = question_files.text(file, index, row, "question") + SHORT_ANSWER
            split = question_files.given(file, index, row, "data_subtype", "val2014" if labels else "test2015")
            number = question_files.whole(file, index, row, "image_id")
            image = question_files.given(file, index, row, "image", f"COCO_{split}_{number:012d}.jpg")
            if not labels:
                questions.append(Question(key, (image,), text, "", "all", image, known=False))
                continue
            place, gold = question_files.gold_of(golds, key, file, index, labels)
            answers = question_files.ten(labels, place, gold)
            best = question_files.given(labels, place, gold, "multiple_choice_answer", answers[0])
            kind = question_files.given(labels, place, gold, "answer_type", "all")
            questions.append(Question(key, (image,), text, best, kind, image, {"answers": answers}))
        return questions

    def images_uri(self, uri: str) -> str:
        if not layouts.is_folder(uri) and "val2014" in uri:
            return layouts.beside(uri, "val2014") or super().images_uri(uri)
        if layouts.is_folder(uri) and "annotations" in layouts.find(uri, self.forms):
            return layouts.beside(uri, "val2014") or super().images_uri(uri)
        return super().images_uri(uri)

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        if profile == "robust":
            answer = answer.strip().removesuffix(".")
            for opening in _OPENINGS:
                answer = answer[len(opening) :] if answer.lower().startswith(opening) else answer
            return vqa_score.accuracy(answer, question.gold["answers"], lenient)
        # The original normalises answers before it hands them to the official scorer.
        own = vqa_score.normalise_tokens(answer)
        return vqa_score.accuracy(own, question.gold["answers"], plain_if_unanimous=True)

    def submission(self, uri: str, questions: Sequence[Question], answers: Mapping[str, str]) -> Submission | None:
        if all(question.known for question in questions):
            return None
        # The server takes the whole of test2015; what test-dev does not ask stays empty.
        whole = layouts.beside(uri, WHOLE)
        rows_of = question_files.asked(whole) if whole else ()
        ids = [str(question_files.whole(str(whole), index, row, "question_id")) for index, row in rows_of]
        ids = ids or [question.id for question in questions]
        rows = [
            {"question_id": int(key), "answer": vqa_score.normalise_tokens(answers[key]) if key in answers else ""}
            for key in ids
        ]
        return submission.json_list("vqav2-test-dev.json", SERVER, rows, "question_id")
