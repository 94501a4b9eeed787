"""Our scorers beside the official rules, restated here on their own, on hundreds of made-up answers each.

Sources: `vqaEval.py` of the VQA challenge, `m4c_evaluator.py`, `eval_pope.py`, `eval_science_qa.py`,
`convert_gqa_for_eval.py` and `convert_seed_for_submission.py` of haotian-liu/LLaVA, `calculation.py` of MME's
eval_tool, `matching_util.py` of open-compass/VLMEvalKit, `cider_scorer.py` of pycocoevalcap. The statements below are
written from what those do, in another shape than the package's.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from functools import lru_cache

import pytest

from llava.evaluation import choices, vqa_score
from llava.evaluation.benchmark import Question
from llava.evaluation.benchmarks import get_benchmark
from llava.evaluation.benchmarks.pope import Pope
from llava.evaluation.cider import cider
from llava.evaluation.contractions import CONTRACTIONS
from llava.evaluation.ptb import plain_words

COUNT = 400
PIECES = [
    "yes", "no", "Yes", "No", "NO", "not", "red", "blue", "two", "2", "1,000", "3.5", ".", "..", "a", "an", "the",
    "The", "none", "dont", "don't", "wont", "A.", "B.", "(A)", "(B)", "C)", "B", "A", "D", "Answer:", "option",
    "Option", "answer", "is", "The", "cat", "dog's", "cat,", "dog.", "on/off", "well-known", "?", "!", "\n", "\t",
    "wouldnt've", "he'dve", "oclock", "Z", "a.m.", "it's", "its", ";", ":", "@", "#", "[0.10,0.20]", "E.", "\u2028",
    "é",
]  # fmt: skip


def answers(seed: int, pieces: list[str] | None = None) -> list[str]:
    """Answers that hit the corners: glued and spaced pieces, empty ones, repeated marks."""
    generator = random.Random(seed)
    made = ["", " ", ".", "The answer is B.", "The answer is A. The answer is B.", "A"]
    while len(made) < COUNT:
        chosen = generator.choices(pieces or PIECES, k=generator.randint(1, 6))
        made.append(generator.choice([" ", " ", ""]).join(chosen).replace("\\n", "\n"))
    return made


def asked(expected: str, **gold: object) -> Question:
    return Question("1", ("i.jpg",), "q", expected, "all", "i.jpg", gold)


def ours(name: str, question: Question, answer: str) -> float:
    return get_benchmark(name).score(question, answer, "llava-1.5")


def evalai(text: str, *, tokenise: bool) -> str:
    """The VQA challenge's normal form, and with `tokenise` the EvalAI processor's."""
    if tokenise:
        text = text.lower()
        for old, new in ((",", ""), ("?", ""), ("'s", " 's")):
            text = text.replace(old, new)
        text = text.strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    out = text
    for mark in [
        ";",
        "/",
        "[",
        "]",
        '"',
        "{",
        "}",
        "(",
        ")",
        "=",
        "+",
        "\\",
        "_",
        "-",
        ">",
        "<",
        "@",
        "`",
        ",",
        "?",
        "!",
    ]:
        if mark + " " in text or " " + mark in text or re.search(r"\d,+\d", text):
            out = out.replace(mark, "")
        else:
            out = out.replace(mark, " ")
    out = re.compile(r"\.(?!\d)").sub("", out, 32)
    words = "zero one two three four five six seven eight nine ten".split()  # noqa: SIM905
    numbers = {word: str(number) for number, word in enumerate(words)}
    numbers["none"] = "0"
    kept = []
    for word in out.lower().split():
        digit = numbers.get(word, word)
        if digit not in ("a", "an", "the"):
            kept.append(digit)
    return " ".join(CONTRACTIONS.get(word, word) for word in kept)


def leave_one_out(own: str, golds: list[str]) -> float:
    parts = []
    for left_out in range(len(golds)):
        others = golds[:left_out] + golds[left_out + 1 :]
        parts.append(min(1.0, others.count(own) / 3))
    return sum(parts) / len(parts)


def test_the_contraction_table_is_whole() -> None:
    assert len(CONTRACTIONS) == 120
    # The ones a rule about endings gets wrong or cannot make, from the official table.
    for written, restored in {
        "somebody'd": "somebodyd",
        "ow's'at": "'ow's'at",
        "'ow'sat": "'ow's'at",
        "y'alld've": "y'all'd've",
        "hadnt've": "hadn't've",
        "Ive": "I've",
        "let's": "let's",
        "twas": "'twas",
        "shant": "shan't",
        "notve": "not've",
    }.items():
        assert CONTRACTIONS[written] == restored
    assert "im" not in CONTRACTIONS and "hell" not in CONTRACTIONS and "id" not in CONTRACTIONS


def test_vqa_normal_forms() -> None:
    for text in answers(1):
        assert vqa_score.normalise(text) == evalai(text, tokenise=False), repr(text)
        assert vqa_score.normalise_tokens(text) == evalai(text, tokenise=True), repr(text)


def test_vqav2_vizwiz_textvqa() -> None:
    generator = random.Random(2)
    for text in answers(3):
        pool = [text, evalai(text, tokenise=True), "red", "2", "dont", "no"]
        golds = generator.choices(pool[: generator.randint(1, 6)], k=10)
        own = evalai(text, tokenise=True)  # the converters' form of an answer, which the server then scores
        if len(set(golds)) > 1:
            own, people = evalai(own, tokenise=False), [evalai(gold, tokenise=False) for gold in golds]
        else:
            own, people = " ".join(own.split()), [" ".join(gold.split()) for gold in golds]
        for name in ("vqav2", "vizwiz"):
            assert ours(name, asked("", answers=golds), text) == pytest.approx(leave_one_out(own, people)), (
                text,
                golds,
            )
        own, people = evalai(text, tokenise=True), [evalai(gold, tokenise=True) for gold in golds]
        assert ours("textvqa", asked("", answers=golds), text) == pytest.approx(leave_one_out(own, people)), (
            text,
            golds,
        )


def test_gqa_loses_every_final_period() -> None:
    for text in answers(4):
        for gold in ("yes", "no", "red", "2", "cat"):
            said = text.strip().rstrip(".").lower()
            assert ours("gqa", asked(gold), text) == float(said == gold), repr(text)
    assert ours("gqa", asked("yes"), "Yes...") == 1.0 and ours("gqa", asked("yes"), "Yes .") == 0.0


def test_pope() -> None:
    for text in answers(5):
        sentence = text[: text.index(".")] if "." in text else text
        words = sentence.replace(",", "").split(" ")
        assert Pope().said_yes(text, "llava-1.5") == (not {"No", "not", "no"} & set(words)), repr(text)


def test_mme() -> None:
    for text in answers(6, ["yes", "no", "Yes", "No", "NO", "nope", "not", "eyes", "ye", "n", ".", ",", "a", "now"]):
        start = text.strip().lower()
        said = (
            start if start in ("yes", "no") else ("yes" if "yes" in start[:4] else "no" if "no" in start[:4] else "?")
        )
        for gold in ("yes", "no"):
            assert ours("mme", asked(gold), text) == float(said == gold), repr(text)


def science_letter(text: str, count: int) -> str | None:
    """`eval_science_qa.py`: five letters are known, and one beyond the choices fails."""
    letters = "ABCDE"
    if text in list(letters):
        found = text
    elif len(text) >= 3 and text[0] in letters and text[1:3] == ". ":
        found = text[0]
    else:
        every = re.findall(r"The answer is ([A-Z]).", text)
        if len(every) != 1:
            return None
        found = every[0]
    return found if found in letters[:count] else None


LETTERED = [
    "A", "B", "C", "D", "E", ".", " ", "(", ")", ":", "The answer is ", "Answer:", "Option ", "cat", "dog", "\n", "Z",
]  # fmt: skip


def test_scienceqa_and_seed() -> None:
    for text in answers(7, LETTERED):
        for count in (2, 3, 5):
            options = choices.lettered(["cat", "dog", "hen", "cow", "ox"][:count])
            said = science_letter(text.strip(), count)
            for gold in options:
                score = ours("scienceqa", asked(gold, letter=gold, options=options), text)
                assert score == float(said == gold), (text, gold)
        for gold in "ABCD":
            score = ours("seed", asked(gold, letter=gold, options=choices.lettered(list("wxyz"))), text)
            assert score == float(text.strip() == gold)


def can_infer(answer: str, options: dict[str, str]) -> str | bool:
    """VLMEvalKit's exact matching: a lone letter among the words, or the only option text inside."""
    for refusal in (
        "Sorry, I can't help with images of people yet.",
        "I can't process this file.",
        "I'm sorry, but without the image provided",
        "Cannot determine the answer",
    ):
        if refusal in answer:
            return "Z"
    blank = answer
    for mark in ".()[],:;!*#{}":
        blank = blank.replace(mark, " ")
    words = [word.strip() for word in blank.split()]
    count = sum(letter in words for letter in options)
    if count == 1:
        return next(letter for letter in options if letter in words)
    if count == 0 and "Z" in words:
        return "Z"
    inside = [letter for letter, text in options.items() if text.lower() in answer.lower()]
    return inside[0] if len(inside) == 1 else False


def test_mmbench_reads_as_vlmevalkit_does() -> None:
    refusals = ["Sorry, I can't help with images of people yet.", "Cannot determine the answer A"]
    for text in [*answers(8, LETTERED), *answers(9), *refusals]:
        for options in ({"A": "cat", "B": "dog"}, {"A": "cat", "C": "red", "D": "a cat"}):
            said = can_infer(text, dict(options))
            for gold in options:
                score = ours("mmbench", asked(gold, letter=gold, options=options), text)
                assert score == float(said == gold), (text, options)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("A.", "A"), ("(A)", "A"), ("The answer is B", "B"), ("Answer:C", "C"), ("C)", "C"), ("Option C", "C"),
     ("B. blue", "B"), ("the red one", "A"), ("red or blue", None), ("A or B", None), ("", None)],
)  # fmt: skip
def test_mmbench_takes_letters_in_the_dresses_that_are_published(answer: str, letter: str | None) -> None:
    assert choices.inferred(answer, {"A": "red", "B": "blue", "C": "green"}) == letter


def official_cider(candidates: list[list[str]], references: list[list[list[str]]]) -> list[float]:
    """CIDEr-D from the paper: vectors of TF-IDF over n-grams, clipped cosine, Gaussian penalty, times ten."""

    def grams(words: list[str], n: int) -> list[tuple[str, ...]]:
        return [tuple(words[k : k + n]) for k in range(len(words) - n + 1)]

    every = [{gram for words in sets for n in (1, 2, 3, 4) for gram in grams(words, n)} for sets in references]

    @lru_cache(None)
    def documents(gram: tuple[str, ...]) -> int:
        return sum(gram in known for known in every)

    scores = []
    for candidate, sets in zip(candidates, references, strict=True):
        total = 0.0
        for words in sets:
            penalty = math.exp(-((len(candidate) - len(words)) ** 2) / (2 * 6.0**2))
            for n in (1, 2, 3, 4):
                mine, theirs = grams(candidate, n), grams(words, n)
                weight = {
                    gram: math.log(len(references)) - math.log(max(1, documents(gram))) for gram in {*mine, *theirs}
                }
                own = {gram: mine.count(gram) * weight[gram] for gram in set(mine)}
                other = {gram: theirs.count(gram) * weight[gram] for gram in set(theirs)}
                dot = sum(min(own[gram], other[gram]) * other[gram] for gram in set(own) & set(other))
                length = math.hypot(*own.values()) * math.hypot(*other.values()) if own and other else 0.0
                total += penalty * dot / length / 4 if length else 0.0
        scores.append(10 * total / len(sets))
    return scores


def test_cider_on_three_hundred_captions() -> None:
    generator = random.Random(10)
    nouns = ["dog", "cat", "man's", "hat", "tree", "red", "on", "a", "the", "with", "two", "grass"]

    def caption() -> str:
        return " ".join(generator.choices(nouns, k=generator.randint(1, 9)))

    candidates = [caption() for _ in range(300)]
    references = [[caption() for _ in range(generator.randint(1, 5))] for _ in range(300)]
    import llava.evaluation.cider as module

    plain = [plain_words(text) for text in candidates]
    expected = official_cider(plain, [[plain_words(text) for text in texts] for texts in references])
    patch = pytest.MonkeyPatch()
    with patch.context() as context:  # equal tokens, whether there is a Java here or not
        context.setattr(module, "words_of", lambda texts: [plain_words(text) for text in texts])
        assert cider(candidates, references) == pytest.approx(expected, abs=1e-9)


def test_refcoco_boxes_on_four_hundred_pairs() -> None:
    generator = random.Random(11)
    for _ in range(COUNT):
        box = (
            sorted(round(generator.random(), 2) for _ in range(2)),
            sorted(round(generator.random(), 2) for _ in range(2)),
        )
        said = (
            sorted(round(generator.random(), 2) for _ in range(2)),
            sorted(round(generator.random(), 2) for _ in range(2)),
        )
        (left, right), (top, bottom) = box
        (x1, x2), (y1, y2) = said
        cells = list(itertools.product(range(100), range(100)))

        def inside(a: float, b: float, k: int) -> bool:
            return round(a * 100) <= k < round(b * 100)

        if generator.random() > 0.05:  # counting cells is slow: a few by cells, all by arithmetic
            wide, high = max(0.0, min(right, x2) - max(left, x1)), max(0.0, min(bottom, y2) - max(top, y1))
            both = wide * high
            union = (right - left) * (bottom - top) + (x2 - x1) * (y2 - y1) - both
        else:
            mine = {(i, j) for i, j in cells if inside(left, right, i) and inside(top, bottom, j)}
            theirs = {(i, j) for i, j in cells if inside(x1, x2, i) and inside(y1, y2, j)}
            both, union = float(len(mine & theirs)), float(len(mine | theirs))
        right_answer = float(union > 0 and both / union >= 0.5 and both > 0)
        question = asked("", box=(left, top, right, bottom), size=(100.0, 100.0))
        if union and abs(both / union - 0.5) < 1e-9:
            continue  # on the line, rounding decides
        assert ours("refcoco", question, f"[{x1:.2f}, {y1:.2f}, {x2:.2f}, {y2:.2f}]") == right_answer
