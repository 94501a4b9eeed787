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
from llava.evaluation.statistics import Interval

COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
RELEASE = "MME_Benchmark_release_version"
SOURCE = "https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models/tree/Evaluation"


class MME(Benchmark):
    """Per subtask 100 x (accuracy + accuracy+), accuracy+ wanting both questions of an image right; summed."""

    name = "mme"
    headline = "perception"
    image_folders = (RELEASE,)
    forms = (
        Form(
            "LLaVA-1.5's layout",
            (Part("asked", layouts.EVAL_ZIP, ("llava_mme.jsonl",)), Part("release", SOURCE, (RELEASE,))),
        ),
        Form("the release folder", (Part("release", SOURCE, (RELEASE,)),)),
    )

    def read(self, uri: str) -> list[Question]:
        if not layouts.is_folder(uri) and "llava_mme.jsonl" not in uri:
            return self._pairs([question for file in question_files.files(uri) for question in self._lines(file)], uri)
        folder = layouts.folder_of(uri)
        if layouts.beside(folder, "existence", "color"):  # the release folder itself
            return self._pairs(self._own(mme_release.read(folder)), uri)
        found = layouts.find(folder, self.forms)
        release = mme_release.read(found["release"])
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
            kind = str(row.get("category") or image.split("/", 1)[0])
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

    def figures(self, scored: Sequence[Scored], profile: Profile) -> dict[str, Interval]:
        clusters = [item.question.cluster for item in scored]

        def total(chosen: Sequence[int], cognition: bool) -> float:
            by_kind: dict[str, dict[str, list[list[float]]]] = {}
            copies: dict[str, int] = {}
            for k in chosen:
                item = scored[k]
                if (item.question.kind.lower() in COGNITION) is not cognition:
                    continue
                # An image drawn twice is two images: its questions come together, one draw after the other.
                seen = copies.get(item.question.id, 0)
                copies[item.question.id] = seen + 1
                groups = by_kind.setdefault(item.question.kind, {}).setdefault(item.question.cluster, [])
                while len(groups) <= seen:
                    groups.append([])
                groups[seen].append(item.scores[profile])
            value = 0.0
            for clusters_of_kind in by_kind.values():
                pairs = [group for groups in clusters_of_kind.values() for group in groups]
                answers = [score for pair in pairs for score in pair]
                value += 100 * (sum(answers) / len(answers) + sum(all(pair) for pair in pairs) / len(pairs))
            return value

        figures = {
            name: statistics.bootstrap_statistic(lambda chosen, part=part: total(list(chosen), part), clusters)  # type: ignore[misc]
            for name, part in (("perception", False), ("cognition", True))
        }
        figures["accuracy"] = statistics.mean([item.scores[profile] for item in scored], clusters)
        return figures
