"""MME (Fu et al. 2023, arXiv:2306.13394): two yes/no questions an image, in fourteen subtasks.

Read from the release folder (`<subtask>/<image>` beside `<subtask>/<image>.txt`, or the two in `images` and
`questions_answers_YN`), with or without LLaVA-1.5's `llava_mme.jsonl`; or from JSON lines with `question_id`, `image`
(`<subtask>/<file>`), `question`, `answer` (Yes or No) and `category`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from llava.errors import DataError, RowError
from llava.evaluation import layouts, mme_release, question_files, statistics
from llava.evaluation.benchmark import SHORT_ANSWER, Benchmark, Profile, Question, Scored
from llava.evaluation.layouts import Form, Part
from llava.evaluation.ratios import Ratios
from llava.evaluation.statistics import Interval

COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
RELEASE = "MME_Benchmark_release_version"
SOURCE = "https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models/tree/Evaluation"
_RELEASE = Part("release", SOURCE, (RELEASE, mme_release.INNER))


class MME(Benchmark):
    """Per subtask 100 x (accuracy + accuracy+), accuracy+ wanting both questions of an image right; summed."""

    name = "mme"
    headline = "perception"
    image_folders = (f"{RELEASE}/{mme_release.INNER}", RELEASE, mme_release.INNER)
    forms = (
        Form(
            "LLaVA-1.5's layout",
            (Part("asked", layouts.EVAL_ZIP, ("llava_mme.jsonl",)), _RELEASE),
        ),
        Form("the release folder", (_RELEASE,)),
    )

    def read(self, uri: str) -> list[Question]:
        if not layouts.is_folder(uri) and "llava_mme.jsonl" not in uri:
            return self._pairs([question for file in question_files.files(uri) for question in self._lines(file)], uri)
        folder = layouts.folder_of(uri)
        if layouts.beside(folder, "existence", "color"):  # the release folder itself
            return self._pairs(self._own(mme_release.read(folder)), uri)
        found = layouts.find(folder, self.forms)
        release = mme_release.read(mme_release.root_of(found["release"]))
        return self._pairs(self._joined(found["asked"], release) if "asked" in found else self._own(release), uri)

    def _own(self, release: Sequence[mme_release.Item]) -> list[Question]:
        return [
            Question(
                f"{item.image}#{item.number}",
                (item.image,),
                item.question + SHORT_ANSWER,
                item.answer,
                item.subtask,
                item.image,
            )
            for item in release
        ]

    def _joined(self, file: str, release: Sequence[mme_release.Item]) -> list[Question]:
        answers = {(item.subtask, item.stem, item.question): item for item in release}
        questions = []
        for index, row in question_files.asked(file):
            image, prompt = row["image"], row["text"]
            subtask, stem = image.split("/", 1)[0], image.rsplit("/", 1)[-1].split(".", 1)[0]
            question = mme_release.plain(prompt.removesuffix(SHORT_ANSWER))
            item = answers.get((subtask, stem, question))
            if item is None:
                expected = f"a question that is in {subtask}/{stem}.txt of the release"
                raise RowError(file, index, "text", question, expected, problem="row-id")
            questions.append(Question(f"{image}#{item.number}", (image,), prompt, item.answer, subtask, image))
        return questions

    def _lines(self, file: str) -> list[Question]:
        questions = []
        for index, row in question_files.json_lines(file):
            label = question_files.text(file, index, row, "answer").lower()
            if label not in ("yes", "no"):
                raise RowError(file, index, "answer", label, "Yes or No", problem="row-field")
            image = question_files.text(file, index, row, "image")
            kind = question_files.given(file, index, row, "category", image.split("/", 1)[0])
            text = mme_release.plain(question_files.text(file, index, row, "question")) + SHORT_ANSWER
            key = f"{question_files.text(file, index, row, 'question_id')}#{index}"
            questions.append(Question(key, (image,), text, label, kind, f"{kind}/{image}"))
        return questions

    @staticmethod
    def _pairs(questions: list[Question], uri: str) -> list[Question]:
        """Accuracy+ is defined over pairs: an image with another number of questions is an error, and is named."""
        counts = Counter(question.cluster for question in questions)
        odd = [f"{image} ({count})" for image, count in counts.items() if count != 2]
        if odd:
            shown = ", ".join(odd[:5]) + (f" and {len(odd) - 5} more" if len(odd) > 5 else "")
            raise DataError(f"{uri}: images without their two questions: {shown}; expected two each, as MME has them")
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        text = answer.strip().lower()
        # The original looks at four characters: "yes", "no, ...", "No." and also "nope" and "not sure".
        first = text[:4] if profile == "llava-1.5" else text.split(".", 1)[0]
        if profile == "llava-1.5":
            said = "yes" if "yes" in first else "no" if "no" in first else "other"
        else:
            words = first.replace(",", " ").split()
            said = words[0] if words and words[0] in ("yes", "no") else "other"
        return float(said == question.expected)

    def headline_ratios(self, scored: Sequence[Scored], profile: Profile) -> Ratios:
        return _total(scored, profile, cognition=False)

    def figures(self, scored: Sequence[Scored], profile: Profile) -> dict[str, Interval]:
        clusters = [item.question.cluster for item in scored]
        return {
            "perception": statistics.estimate(self.headline_ratios(scored, profile), clusters),
            "cognition": statistics.estimate(_total(scored, profile, cognition=True), clusters),
            "accuracy": statistics.mean([item.scores[profile] for item in scored], clusters),
        }


def _total(scored: Sequence[Scored], profile: Profile, *, cognition: bool) -> Ratios:
    """Accuracy and accuracy+ of each subtask as ratios; an image's two questions share one unit of accuracy+."""
    images: dict[str, list[float]] = {}
    for item in scored:
        images.setdefault(item.question.cluster, []).append(item.scores[profile])
    kinds = dict.fromkeys(item.question.kind for item in scored)
    pairs: list[tuple[list[float], list[float]]] = []
    for kind in kinds:
        if (kind.lower() in COGNITION) is not cognition:
            continue
        own = [float(item.question.kind == kind) for item in scored]
        share = [mine / len(images[item.question.cluster]) for mine, item in zip(own, scored, strict=True)]
        pairs.append(([mine * item.scores[profile] for mine, item in zip(own, scored, strict=True)], own))
        both = [part * all(images[item.question.cluster]) for part, item in zip(share, scored, strict=True)]
        pairs.append((both, share))
    return Ratios.sum(pairs or [([0.0] * len(scored), [0.0] * len(scored))], [100.0] * max(1, len(pairs)))
