"""MMBench (Liu et al. 2023, arXiv:2307.06281): multiple choice, each question asked in every rotation of its options.

Read from the official TSV (`index`, `question`, `hint`, `A`..`D`, `answer`, `category`, `image` in base64). Rotations
share the index modulo 1,000,000. The test split has no answers: the stage writes the workbook for the server, as it
does for the development split, whose official figure is the server's too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llava.errors import RowError
from llava.evaluation import choices, layouts, question_files, statistics, submission, tables
from llava.evaluation.benchmark import OPTION_LETTER, OPTION_LETTER_CN, Benchmark, Profile, Question, Scored
from llava.evaluation.layouts import Form, Part
from llava.evaluation.ratios import Ratios
from llava.evaluation.statistics import Interval
from llava.evaluation.submission import Submission

ROTATION = 1_000_000
SOURCE = "https://github.com/open-compass/MMBench"
SERVER = "https://mmbench.opencompass.org.cn/mmbench-submission"
_DROPPED = ("hint", "category", "source", "image", "comment", "l2-category")


class MMBench(Benchmark):
    """`accuracy`: a question counts when all its rotations were answered right; `accuracy_vanilla`: each by itself."""

    name = "mmbench"
    max_new_tokens = 1024
    suffix = OPTION_LETTER
    forms = tuple(
        Form(file, (Part("table", SOURCE, (file,)),))
        for file in (
            "mmbench_dev_20230712.tsv",
            "mmbench_dev_en_20231003.tsv",
            "MMBench_DEV_EN.tsv",
            "mmbench_test_20230712.tsv",
            "mmbench_test_en_20231003.tsv",
            "MMBench_TEST_EN.tsv",
        )
    )

    def read(self, uri: str) -> list[Question]:
        questions = []
        for file in self._files(uri):
            for row in tables.rows(file):
                if len(row.options) < 2:
                    expected = "at least two options"
                    raise RowError(file, row.number, "A, B, C, D", dict(row.options), expected, problem="row-field")
                if not row.key.isdecimal() or len(row.key) > 18:
                    raise RowError(file, row.number, "index", row.key, "a whole number", problem="row-field")
                hint = "" if tables.missing(row.cells.get("hint")) else row.cells["hint"]
                text = choices.ask(row.text("question"), row.options, hint, self.suffix)
                letter, group = row.letter(), str(int(row.key) % ROTATION)
                gold = {"letter": letter, "options": row.options}
                kind = row.given("category", "all")
                questions.append(Question(row.key, row.images, text, letter, kind, group, gold, known=bool(letter)))
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        read = choices.inferred if profile == "llava-1.5" else choices.understood
        return float(read(answer, question.gold["options"]) == question.gold["letter"])

    def submission(self, uri: str, questions: Sequence[Question], answers: Mapping[str, str]) -> Submission | None:
        wanted = {question.id for question in questions}
        columns: list[str] = []
        rows: list[dict[str, object]] = []
        for file in self._files(uri):
            for row in tables.read_table(file):
                if row["index"] not in wanted:
                    continue
                columns = columns or [column for column in row if column not in _DROPPED]
                kept: dict[str, object] = {key: None if tables.missing(row[key]) else row[key] for key in columns}
                rows.append(kept | {"index": int(row["index"]), "prediction": answers.get(row["index"], "")})
        place = min(6, len(columns))
        header = [*columns[:place], "prediction", *columns[place:]]
        return submission.spreadsheet(f"{self.name}.xlsx", SERVER, header, rows)

    def _files(self, uri: str) -> list[str]:
        if layouts.is_folder(uri):
            return [layouts.find(uri, self.forms)["table"]]
        return question_files.files(uri)

    def headline_ratios(self, scored: Sequence[Scored], profile: Profile) -> Ratios:
        groups: dict[str, list[float]] = {}
        for item in scored:
            groups.setdefault(item.question.cluster, []).append(item.scores[profile])
        share = [1 / len(groups[item.question.cluster]) for item in scored]
        return Ratios.ratio(
            [part * all(groups[item.question.cluster]) for part, item in zip(share, scored, strict=True)], share
        )

    def figures(self, scored: Sequence[Scored], profile: Profile) -> dict[str, Interval]:
        clusters = [item.question.cluster for item in scored]
        return {
            "accuracy": statistics.estimate(self.headline_ratios(scored, profile), clusters),
            "accuracy_vanilla": statistics.mean([item.scores[profile] for item in scored], clusters),
        }


class MMBenchCN(MMBench):
    """The same questions in Chinese, with LLaVA-1.5's suffix for them."""

    name = "mmbench-cn"
    suffix = OPTION_LETTER_CN
    forms = tuple(
        Form(file, (Part("table", SOURCE, (file,)),))
        for file in (
            "mmbench_dev_cn_20231003.tsv",
            "MMBench_DEV_CN.tsv",
            "mmbench_test_cn_20231003.tsv",
            "MMBench_TEST_CN.tsv",
        )
    )
