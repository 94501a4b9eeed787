"""TextVQA (Singh et al. 2019): questions whose answer is written in the image; ten answers each.

The prompt carries the OCR tokens where they are there, as that of LLaVA-1.5's published figure does.
"""

from __future__ import annotations

from llava.errors import RowError
from llava.evaluation import layouts, question_files, vqa_score
from llava.evaluation.benchmark import SHORT_ANSWER, Benchmark, Profile, Question
from llava.evaluation.layouts import Form, Part
from llava.evaluation.normalise import lenient

SOURCE = "https://textvqa.org/dataset/"
_ANSWERS = Part("questions", SOURCE, ("TextVQA_0.5.1_val.json",))


class TextVQA(Benchmark):
    """VQA accuracy over the ten answers, with the tokenising normaliser."""

    name = "textvqa"
    image_folders = ("train_images", "train_val_images/train_images", "images")
    forms = (
        Form(
            "LLaVA-1.5's layout",
            (Part("asked", layouts.EVAL_ZIP, ("llava_textvqa_val_v051_ocr.jsonl",)), _ANSWERS),
        ),
        Form("the official release with OCR", (_ANSWERS, Part("ocr", SOURCE, ("TextVQA_Rosetta_OCR_v0.2_val.json",)))),
        Form("the official release without OCR", (_ANSWERS,)),
    )

    def read(self, uri: str) -> list[Question]:
        found = layouts.find(uri, self.forms)
        file = found["questions"]
        seen: dict[str, list[str]] = {}
        if "ocr" in found:
            for index, row in enumerate(question_files.table(found["ocr"], "data")):
                tokens = row.get("ocr_tokens") or []
                if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
                    raise RowError(found["ocr"], index, "ocr_tokens", tokens, "a list of texts", problem="row-field")
                seen[question_files.text(found["ocr"], index, row, "image_id")] = tokens
        prompts = self._prompts(found["asked"]) if "asked" in found else None
        questions = []
        for index, row in enumerate(question_files.table(file, "data")):
            image = question_files.text(file, index, row, "image_id")
            text = question_files.text(file, index, row, "question")
            key = question_files.text(file, index, row, "question_id")
            if prompts is not None:
                pair = (image, text.lower())
                if pair not in prompts:
                    expected = f"a question that is in {found['asked']}"
                    raise RowError(file, index, "question", text, expected, problem="row-id")
                text = prompts[pair]
            else:
                ocr = f"\nReference OCR token: {', '.join(seen.get(image, []))}" if "ocr" in found else ""
                text = text[0].upper() + text[1:] + ocr + SHORT_ANSWER
            answers = question_files.ten(file, index, row)
            best = max(dict.fromkeys(answers), key=answers.count)
            questions.append(Question(key, (f"{image}.jpg",), text, best, "all", image, {"answers": answers}))
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        normal = vqa_score.normalise_tokens if profile == "llava-1.5" else lenient
        return vqa_score.accuracy(answer, question.gold["answers"], normal)

    @staticmethod
    def _prompts(file: str) -> dict[tuple[str, str], str]:
        """Prompts by image and question, in lower case: the original joins its answers to the annotations so."""
        return {
            (str(row["question_id"]), row["text"].split("\n", 1)[0].lower()): row["text"]
            for _, row in question_files.asked(file)
        }
