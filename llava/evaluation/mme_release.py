"""MME's release folder: a folder a subtask, a text file an image, two lines of question and answer in each."""

from __future__ import annotations

from dataclasses import dataclass

from llava import storage
from llava.errors import DataError, RowError

INNER = "MME_Benchmark"  # newer zips of the release have it around the subtasks
_SCORER = "eval_tool/"
_SUFFIX = "Please answer yes or no."
_IMAGES = (".jpg", ".png", ".jpeg")


@dataclass(frozen=True)
class Item:
    """One question: its subtask, its image's path below the release folder, its place, itself, and `yes` or `no`."""

    subtask: str
    image: str
    number: int
    question: str
    answer: str

    @property
    def stem(self) -> str:
        """The image's name without its ending, which is its text file's name too."""
        return self.image.rsplit("/", 1)[-1].split(".", 1)[0]


def plain(question: str) -> str:
    """The question without ` Please answer yes or no.`, which stands behind one blank, or in some files behind two."""
    text = question.strip()
    return text.removesuffix(_SUFFIX).rstrip() if text.endswith(_SUFFIX) else text


def root_of(folder: str) -> str:
    """The folder that holds the subtasks: the release's own, or the one inside it."""
    inner = storage.join(folder, INNER)
    return inner if storage.exists(inner) else folder


def read(folder: str) -> list[Item]:
    """All questions of a release folder, in the order of their names.

    Raises:
        DataError: no questions there, or a text file without its image.
        RowError: a line is not question, tab, Yes or No.
    """
    paths = sorted(item.path for item in storage.list_files(folder))
    # What macOS leaves beside each file (`._1.txt`), and the official scorer, which some unpack here, are no questions.
    paths = [path for path in paths if not path.rsplit("/", 1)[-1].startswith(".") and not path.startswith(_SCORER)]
    images = {_key(path): path for path in paths if path.lower().endswith(_IMAGES)}
    items = []
    for path in paths:
        if not path.endswith(".txt") or path.count("/") not in (1, 2):
            continue
        if path.count("/") == 2 and path.split("/")[1] != "questions_answers_YN":
            continue
        uri = storage.join(folder, path)
        if _key(path) not in images:
            raise DataError(f"{uri}: its image is not there; expected {_key(path)[1]}.jpg or .png beside it")
        lines = [line for line in storage.read_text(uri).split("\n") if line.strip()]
        for number, line in enumerate(lines):
            question, tab, answer = line.strip().rpartition("\t")
            label = answer.strip().lower()
            if not tab or label not in ("yes", "no"):
                raise RowError(uri, number, "(line)", line, "question, tab, Yes or No", problem="row-format")
            items.append(Item(path.split("/", 1)[0], images[_key(path)], number, plain(question), label))
    if not items:
        raise DataError(f"{folder}: no questions in it; expected <subtask>/<image>.txt as MME's release has them")
    return items


def _key(path: str) -> tuple[str, str]:
    """(subtask, name without ending) of a file of the release, whichever of its two layouts it has."""
    return path.split("/", 1)[0], path.rsplit("/", 1)[-1].split(".", 1)[0]
