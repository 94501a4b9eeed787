"""Open answers, own questions and judges' replies beside the official rules, restated, on 400 made-up texts each.

Sources: `parse_open_response` and `eval_open` of MMMU-Benchmark/MMMU, `can_infer` of open-compass/VLMEvalKit (AI2D and
own questions with options), `convert_gqa_for_eval.py` and `parse_score` of haotian-liu/LLaVA (own questions without
options, LLaVA-Bench), `mm-vet_evaluator.py` of yuweihao/MM-Vet. `COUNTED` is the table of the page: how many differ.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from llava.evaluation.benchmark import Question
from llava.evaluation.benchmarks import get_benchmark
from llava.evaluation.benchmarks.llava_bench import LLaVABench
from llava.evaluation.benchmarks.mmvet import MMVet
from tests.evaluation.test_official_rules import LETTERED, can_infer

COUNT = 400
OPEN = [
    "3.5", "3.504", "1,200", "1200", "-4", "1e3", "2.5E-2", ".5", "12%", "12", "$7", "x", "x = ", "y = ", "=", "is ",
    "is", "so ", "so", "thus ", "therefore ", "final ", "answer ", "result ", "could be ", "the ", "red", "dark red",
    "Red", "RED", ".", ". The ", "\n", ";", ": ", "?", "!", "'", "a", "b", "about ", "12.0", "0.125", "1,2", "is:",
    "answer is ",
]  # fmt: skip
GOLDS = (["3.5"], ["1200"], ["red"], ["dark red"], ["x"], ["-4", "minus four"], ["12%"], ["0.5"], ["1,000"], [".", "a"])
REPLIES = [
    "0.5", "1.0", "0", "1", ".5", "1.", "0.05", "1.5", "2", "-0.1", "+0.3", "1e-1", "8", "9", "10", "0", "11", "7.5",
    " ", "  ", "\n", ", ", ",", "/10", "score", "Score: ", "8 9", "8, 9", "8,9", "9 8\n", "0.5\nIt is", "nan", "inf",
    "\t", "The",
]  # fmt: skip


def texts(seed: int, pieces: Sequence[str]) -> list[str]:
    """Pieces glued and spaced: empty, short, long."""
    draw = random.Random(seed)
    made = ["", " ", "."]
    while len(made) < COUNT:
        glue = draw.choice(["", " ", " "])
        made.append(glue.join(draw.choices(pieces, k=draw.choice([1, 1, 2, 3, 4, 6]))))
    return made


def asked(**gold: object) -> Question:
    return Question("1", (), "Q?", str(gold.get("letter", "")), "all", "1", gold)


def score(name: str, question: Question, answer: str) -> float:
    return get_benchmark(name).score(question, answer, "llava-1.5")


def mmmu_normal(text: str) -> list[str | float]:
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
    return [text] if len(text) != 1 else [" " + text, text + " "]


def mmmu_open(golds: list[str], said: str) -> bool:
    whole = said.strip().strip(".").lower()
    sentences = re.split(r"\.\s(?=[A-Z])|\n", whole)
    marks = ["could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result "]
    ends: list[str] = []
    for number, sentence in enumerate(sentences, 1):
        marks += ["="] if number == len(sentences) else []
        shortest = ""
        for mark in marks:
            if mark in sentence:
                end = sentence[sentence.rindex(mark) + len(mark) :].strip()
                shortest = end if shortest == "" or len(end) < len(shortest) else shortest
        if shortest and shortest not in (":", ",", ".", "!", "?", ";", "'"):
            ends.append(shortest)
    ends = ends or [whole]
    found = list(ends)
    for end in ends:
        found += re.findall(r"-?\b\d{1,3}(?:,\d{3})+\b", end)
        found += re.findall(r"-?\d+(?:\.\d+)?[eE][+-]?\d+", end)
        found += re.findall(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])", end)
    right = [value for gold in golds for value in mmmu_normal(gold)]
    for value in (value for text in found for value in mmmu_normal(text)):
        if isinstance(value, float):
            if value in right:
                return True
        elif any(isinstance(gold, str) and gold in value for gold in right):
            return True
    return False


def test_mmmu_open_answers() -> None:
    right = 0
    for said in texts(1, OPEN):
        for golds in GOLDS:
            want = mmmu_open(golds, said)
            assert score("mmmu", asked(answers=golds, options={}), said) == want, (golds, said)
            right += want
    assert 200 < right < COUNT * len(GOLDS) / 2


def test_ai2d_and_own_questions_with_options() -> None:
    options = {"A": "cat", "B": "dog", "C": "a dog", "D": "red"}
    right = 0
    for said in texts(2, [*LETTERED, "a dog", "red", "A cat", "**B**", "#C", "{D}"]):
        want = can_infer(said, dict(options))
        for letter in options:
            assert score("ai2d", asked(letter=letter, options=options), said) == (want == letter), said
            assert score("custom", asked(letters=[letter], options=options), said) == (want == letter), said
            right += want == letter
    assert right > 100


def test_own_questions_without_options() -> None:
    right = 0
    for said in texts(3, ["Yes", "yes", "no", "Two", "two", ".", "..", " .", "red", "a red", "Red.", "\n", "É"]):
        plain = said.strip()
        while plain.endswith("."):
            plain = plain[:-1]
        for golds in (["yes"], ["two", "2"], ["Red"], ["é"]):
            want = plain.lower() in [gold.lower() for gold in golds]
            assert score("custom", asked(answers=golds), said) == want, (golds, said)
            right += want
    assert right > 50


def mm_vet(reply: str) -> float | None:
    try:
        value = float(reply.split(" ")[0].strip())
    except ValueError:
        return None
    return None if value > 1.0 or value < 0.0 else value


def llava_bench(reply: str) -> tuple[float, float] | None:
    cells = reply.split("\n")[0].replace(",", " ").split(" ")
    try:
        return (float(cells[0]), float(cells[1])) if len(cells) == 2 else None
    except ValueError:
        return None


Read = Callable[[str], object]


def differing(replies: Sequence[str], ours: Read, theirs: Read) -> dict[str, tuple[object, object]]:
    """What each reads, by reply, where the two are not the same."""
    pairs = {reply: (ours(reply), theirs(reply)) for reply in replies}
    return {reply: pair for reply, pair in pairs.items() if pair[0] != pair[1]}


def test_mm_vet_replies() -> None:
    def ours(reply: str) -> float | None:
        found = MMVet().verdict(asked(), reply)
        return found.score if found else None

    replies = texts(4, REPLIES)
    assert sum(ours(reply) is not None for reply in replies) > 60
    for reply, (mine, theirs) in differing(replies, ours, mm_vet).items():
        if theirs is None:  # a blank in front of the score: read here, asked again there
            assert reply[:1] in " \n\t" and mine == mm_vet(reply.lstrip()), reply
        else:
            assert mine is None and reply.lstrip().startswith("nan"), reply  # "not a number" is no score
    assert len(differing([reply for reply in replies if not reply[:1].isspace()], ours, mm_vet)) < 10


def test_llava_bench_replies() -> None:
    def ours(reply: str) -> tuple[float, float] | None:
        found = LLaVABench().verdict(asked(), reply)
        return (found.reference, found.score) if found else None

    replies = texts(5, REPLIES) + [f"{a} {b}\nAssistant 1 ..." for a in range(1, 11) for b in range(1, 11)]
    assert sum(ours(reply) is not None for reply in replies) > 110
    for reply, (mine, theirs) in differing(replies, ours, llava_bench).items():
        if theirs is None:  # "8, 9": there -1 and -1, which go into its means; here the two scores
            assert mine == tuple(map(float, reply.split("\n")[0].replace(",", " ").split())), reply
        else:  # beyond the scale of 1 to 10: a score there, asked again here
            assert mine is None and isinstance(theirs, tuple), reply
            assert not all(1 <= value <= 10 for value in theirs), reply
