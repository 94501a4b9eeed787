"""Your own questions: JSON, JSON lines, CSV or TSV, one question a row.

| field | what it holds |
|---|---|
| `question` | what the user says, as it stands: nothing is put before or behind it, but for options |
| `image` or `images` | a path below `images_uri`, or several (in CSV separated by `|`) |
| `question_id` or `id` | unique; default: the row's number |
| `answer` | the right answer |
| `answers` | several that are right (in CSV separated by `|`) |
| `options` | a list or `{letter: text}` (in CSV columns `A`, `B`, ...); `answer` is then a letter or an option's text |
| `kind` | what results are broken down by |
| `cluster` | questions that share it are not independent; default: the image |

A row without `answer` and `answers` is answered but not scored. Any other field is an error: a typing mistake would
otherwise pass for a choice.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from llava import storage
from llava.errors import DataError, RowError
from llava.evaluation import choices, question_files
from llava.evaluation.benchmark import Benchmark, Profile, Question
from llava.evaluation.normalise import exact, lenient

FIELDS = ("question", "image", "images", "question_id", "id", "answer", "answers", "options", "kind", "cluster")
_SEPARATOR = "|"


class Custom(Benchmark):
    """Accuracy: `llava-1.5` compares in lower case without a final period, `robust` also without articles and marks.

    Multiple choice is read by MMBench's rule (`llava-1.5`) or in any dress (`robust`).
    """

    name = "custom"

    def read(self, uri: str) -> list[Question]:
        questions = []
        seen: dict[str, int] = {}
        for file in question_files.files(uri):
            for index, row in _rows(file):
                question = _question(file, index, row)
                if question.id in seen:
                    raise RowError(file, index, "question_id", question.id, "an id of its own", problem="row-id")
                seen[question.id] = index
                questions.append(question)
        return questions

    def score(self, question: Question, answer: str, profile: Profile) -> float:
        options = question.gold.get("options")
        if options:
            read = choices.inferred if profile == "llava-1.5" else choices.understood
            return float(read(answer, options) in question.gold["letters"])
        same = exact if profile == "llava-1.5" else lenient
        accepted = question.gold.get("answers") or [question.expected]
        return float(same(answer) in {same(gold) for gold in accepted})


def _rows(file: str) -> Iterator[tuple[int, dict[str, Any]]]:
    ending = file.rpartition(".")[2].lower()
    if ending in ("csv", "tsv"):
        yield from _table(file, "," if ending == "csv" else "\t")
    elif ending == "json":
        text = storage.read_text(file).lstrip(" \n\r\t")
        if text.startswith("["):
            yield from enumerate(question_files.rows(file))
        else:  # JSON lines under another name, as POPE's are
            yield from question_files.json_lines(file)
    else:
        yield from question_files.json_lines(file)


def _table(file: str, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(1 << 24)
    reader = csv.DictReader(io.StringIO(storage.read_text(file), newline=""), delimiter=delimiter)
    names = _header(file, reader)
    letters = [name for name in names if name in choices.LETTERS and len(name) == 1]
    index = -1
    for index, cells in enumerate(_checked(file, reader)):
        if None in cells or None in cells.values():
            raise RowError(file, index, "(line)", list(cells.values()), f"{len(names)} columns", problem="row-format")
        row: dict[str, Any] = {name: value for name, value in cells.items() if value != "" and name not in letters}
        for several in ("images", "answers"):
            if several in row:
                row[several] = [part.strip() for part in row[several].split(_SEPARATOR)]
        options = {letter: cells[letter] for letter in letters if cells[letter] != ""}
        if options:
            row["options"] = options
        yield index, row
    if index < 0:
        raise DataError(f"{file}: no questions in it; expected a header line and a row a question")


def _header(file: str, reader: csv.DictReader[str]) -> list[str]:
    try:
        names = list(reader.fieldnames or [])
    except csv.Error as error:
        raise DataError(f"{file}: cannot be read: {error}; expected a header line and a row a question") from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{file}: the header has {', '.join(twice)} more than once; expected each column once")
    return names


def _checked(file: str, reader: csv.DictReader[str]) -> Iterator[dict[str, Any]]:
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(f"{file}: line {reader.line_num}: cannot be read: {error}") from error


def _question(file: str, index: int, row: dict[str, Any]) -> Question:
    for name in row:
        if name not in FIELDS:
            raise RowError(file, index, name, row[name], f"one of the fields {', '.join(FIELDS)}", problem="row-field")
    for one, other in (("image", "images"), ("answer", "answers"), ("id", "question_id")):
        if one in row and other in row:
            raise RowError(file, index, other, row[other], f"{one} or {other}, not both", problem="row-field")
    text = question_files.text(file, index, row, "question")
    images = _texts(file, index, row, "images") if "images" in row else _texts(file, index, row, "image")
    accepted = _texts(file, index, row, "answers") if "answers" in row else _texts(file, index, row, "answer")
    key = next(
        (question_files.text(file, index, row, name) for name in ("question_id", "id") if name in row), str(index)
    )
    kind = question_files.text(file, index, row, "kind") if row.get("kind") else "all"
    cluster = question_files.text(file, index, row, "cluster") if row.get("cluster") else (images or (key,))[0]
    gold: dict[str, Any] = {"answers": accepted}
    expected = accepted[0] if accepted else ""
    if "options" in row:
        options = _options(file, index, row["options"])
        letters = [_letter(file, index, gold_text, options) for gold_text in accepted]
        gold |= {"options": options, "letters": letters}
        text, expected = choices.ask(text, options), letters[0] if letters else ""
    return Question(key, tuple(images), text, expected, kind, cluster, gold, known=bool(accepted))


def _texts(file: str, index: int, row: dict[str, Any], field: str) -> list[str]:
    value = row.get(field)
    if value is None:
        return []
    values = value if isinstance(value, list) and field in ("images", "answers") else [value]
    for item in values:
        if isinstance(item, bool) or not isinstance(item, (str, int, float)) or str(item).strip() == "":
            raise RowError(file, index, field, value, "a text that is not empty", problem="row-field")
    return [str(item) for item in values]


def _options(file: str, index: int, value: object) -> dict[str, str]:
    several = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if not all(isinstance(item, (str, int, float)) for item in several):
        raise RowError(file, index, "options", value, "options that are texts", problem="row-field")
    if isinstance(value, list) and 2 <= len(value) <= len(choices.LETTERS):
        value = choices.lettered([str(item) for item in value])
    if not isinstance(value, dict) or len(value) < 2 or not all(key in tuple(choices.LETTERS) for key in value):
        expected = "a list of two options or more, or an object of options by letter"
        raise RowError(file, index, "options", value, expected, problem="row-field")
    return {str(key): str(text) for key, text in value.items()}


def _letter(file: str, index: int, gold: str, options: dict[str, str]) -> str:
    if gold in options:
        return gold
    same = [letter for letter, text in options.items() if text == gold]
    if len(same) != 1:
        expected = f"one of {', '.join(options)}, or the text of one option"
        raise RowError(file, index, "answer", gold, expected, problem="row-field")
    return same[0]
