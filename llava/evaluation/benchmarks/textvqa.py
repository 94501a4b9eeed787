"""TextVQA (Singh et al. 2019): questions whose answer is written in the picture; ten answers each.

`questions_uri`: `TextVQA_0.5.1_val.json`, and behind it `TextVQA_Rosetta_OCR_v0.2_val.json` where the prompt is to
carry the OCR tokens, as that of LLaVA-1.5's published figure does.
"""

from __future__ import annotations

from llava.evaluation import question_files, vqa_score
from llava.evaluation.benchmark import SHORT_ANSWER, Benchmark, Profile, Question
from llava.evaluation.normalise import lenient


class TextVQA(Benchmark):
    """VQA accuracy over the ten answers, with the tokenising normaliser."""

    name = "textvqa"

    def read(self, uri: str) -> list[Question]:
        questions_file, *more = question_files.files(uri)
        seen: dict[str, list[str]] = {}
        for file in more:
            for row in question_files.table(file, "data"):
                seen[str(row["image_id"])] = [str(token) for token in row.get("ocr_tokens", [])]
        questions = []
        for index, row in enumerate(question_files.table(questions_file, "data")):
            image = question_files.text(questions_file, index, row, "image_id")
            text = question_files.text(questions_file, index, row, "question")
            text = text[0].upper() + text[1:]
            if more:
                text += f"\nReference OCR token: {', '.join(seen.get(image, []))}"
            answers = question_files.texts(questions_file, index, row, "answers")
            best = max(dict.fromkeys(answers), key=answers.count)
            key = question_files.text(questions_file, index, row, "question_id")
            gold = {"answers": answers}
            questions.append(Question(key, (f"{image}.jpg",), text + SHORT_ANSWER, best, "all", image, gold))
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        normal = vqa_score.normalise_tokens if profile == "llava-1.5" else lenient
        return vqa_score.accuracy(answer, question.gold["answers"], normal)
