"""Scorers, answer by answer: the original's rules with their quirks, and the robust readings beside them."""

from __future__ import annotations

import pytest

from llava.evaluation import choices, vqa_score
from llava.evaluation.benchmark import Profile, Question
from llava.evaluation.benchmarks import get_benchmark
from llava.evaluation.cider import cider
from llava.evaluation.normalise import exact, lenient


def question(expected: str, **gold: object) -> Question:
    return Question("1", ("i.jpg",), "q", expected, "all", "i.jpg", gold)


def both(benchmark: str, asked: Question, answer: str) -> tuple[float, float]:
    scores = get_benchmark(benchmark).scored(asked, answer).scores
    return scores["llava-1.5"], scores["robust"]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Two dogs.", "2 dogs"),
        ("the cat and a hat", "cat and hat"),
        ("dont know", "don't know"),
        ("It's  there", "it's there"),
        ("1,000", "1000"),
        ("red/green", "red green"),
        ("yes, it is", "yes it is"),
        ("3.5", "3.5"),
        ("7.", "7"),
        ("None", "0"),
        ("wont  whatre youve", "won't what're you've"),
    ],
)
def test_vqa_normal_form(text: str, normal: str) -> None:
    assert vqa_score.normalise(text) == normal


@pytest.mark.parametrize(("matches", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0), (10, 1.0)])
def test_vqa_accuracy_is_the_mean_over_leave_one_out_subsets(matches: int, score: float) -> None:
    golds = ["red"] * matches + [f"other {k}" for k in range(10 - matches)]
    assert vqa_score.accuracy("red", golds) == pytest.approx(score)
    slow = [min(1, sum(g == "red" for k, g in enumerate(golds) if k != out) / 3) for out in range(10)]
    assert vqa_score.accuracy("red", golds) == pytest.approx(sum(slow) / 10)


def test_the_official_scorer_does_not_normalise_when_all_golds_are_equal() -> None:
    assert vqa_score.accuracy("the net", ["net"] * 10, plain_if_unanimous=True) == 0.0
    assert vqa_score.accuracy("the net", ["net"] * 9 + ["nets"], plain_if_unanimous=True) == 1.0
    # The original normalises the answer, not the golds, so a gold of two spellings is lost: robust keeps it.
    assert both("vqav2", question("Two", answers=["Two"] * 10), "Two") == (0.0, 1.0)
    assert both("vqav2", question("2", answers=["2"] * 10), "Two.") == (1.0, 1.0)
    assert both("vqav2", question("red", answers=["red"] * 10), "It is red.") == (0.0, 1.0)


def test_textvqa_and_vizwiz() -> None:
    ten = ["nokia"] * 4 + ["the nokia"] * 2 + ["phone"] * 4
    assert both("textvqa", question("nokia", answers=ten), "Nokia?") == (1.0, 1.0)
    assert both("textvqa", question("nokia", answers=ten), "samsung") == (0.0, 0.0)
    assert both("textvqa", question("dog's", answers=["dog's toy"] * 10), "dog's toy")[0] == 1.0
    golds = ["unanswerable"] * 7 + ["blue"] * 3
    assert both("vizwiz", question("unanswerable", answers=golds), "Unanswerable")[0] == pytest.approx(1.0)
    assert both("vizwiz", question("unanswerable", answers=golds), "blue")[0] == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("answer", "expected", "scores"),
    [
        ("Yes.", "yes", (1, 1)),
        ("a red ball", "red ball", (0, 1)),
        ("two", "2", (0, 1)),
        ("left, top", "left top", (0, 1)),
        ("blue", "red", (0, 0)),
    ],
)
def test_gqa_and_custom_differ_only_where_the_robust_reading_is_kinder(
    answer: str, expected: str, scores: tuple[int, int]
) -> None:
    assert both("gqa", question(expected), answer) == scores
    assert both("custom", question(expected), answer) == scores


def test_plain_normal_forms() -> None:
    assert exact(" Top Left. ") == "top left" and exact("a..") == "a" and exact("1.5") == "1.5"
    assert lenient("The three   (red) shapes!") == "3 red shapes"


@pytest.mark.parametrize(
    ("answer", "original", "robust"),
    [
        ("No, there is no dog.", False, False),
        ("There is not a dog. Yes.", False, False),
        ("no", False, False),
        ("NO", True, False),  # the original knows three spellings
        ("There isn't one.", True, False),
        ("Yes", True, True),
        ("", True, False),
        ("I can see a dog.", True, True),
        ("yes, and not only one", False, True),
    ],
)
def test_pope_reads_yes_and_no(answer: str, original: bool, robust: bool) -> None:
    from llava.evaluation.benchmarks.pope import Pope

    assert (Pope().said_yes(answer, "llava-1.5"), Pope().said_yes(answer, "robust")) == (original, robust)


@pytest.mark.parametrize(
    ("answer", "original", "robust"),
    [
        ("B", "B", "B"),
        ("B. a cat", "B", "B"),
        ("The answer is B.", "B", "B"),
        ("The answer is B", None, "B"),
        ("The answer is A. No, The answer is B.", None, None),
        ("(B) a cat", None, "B"),
        ("a cat", None, "B"),
        ("A cat", None, "B"),
        ("b", None, None),
        ("it shows a dog or a cat", None, None),
        ("", None, None),
    ],
)
def test_letters(answer: str, original: str | None, robust: str | None) -> None:
    assert choices.stated(answer) == original
    assert choices.understood(answer, {"A": "a dog", "B": "a cat"}) == robust


def test_seed_wants_exactly_the_letter_and_mmbench_takes_a_unique_text() -> None:
    asked = question("B", letter="B", options={"A": "a dog", "B": "a cat"})
    assert both("seed", asked, "B. a cat") == (0.0, 1.0)
    assert both("seed", asked, " B ") == (1.0, 1.0)
    assert both("mmbench", asked, "a cat") == (1.0, 1.0)
    assert both("mmbench", asked, "a dog and a cat") == (0.0, 0.0)


@pytest.mark.parametrize(
    ("answer", "scores"), [("Yes", (1, 1)), ("yes, it is", (1, 1)), ("nope", (0, 0)), ("no", (0, 0)), ("eyes", (1, 0))]
)
def test_mme_reads_four_characters(answer: str, scores: tuple[int, int]) -> None:
    assert both("mme", question("yes"), answer) == scores


@pytest.mark.parametrize(
    ("answer", "scores"),
    [
        ("[0.10, 0.20, 0.50, 0.60]", (1, 1)),
        ("The box is [0.1,0.2,0.5,0.45].", (1, 1)),  # overlap 0.625
        ("[0.1, 0.2, 0.5, 0.35]", (0, 0)),
        ("[0.5, 0.6, 0.1, 0.2]", (0, 0)),  # inside out
        ("0.1 0.2 0.5 0.6", (0, 1)),
        ("[20, 0, 100, 80]", (0, 1)),  # pixels of a 200 x 120 image
        ("everywhere", (0, 0)),
    ],
)
def test_refcoco_boxes(answer: str, scores: tuple[int, int]) -> None:
    asked = question("", box=(0.1, 0.2, 0.5, 0.6), size=(200.0, 120.0))
    assert both("refcoco", asked, answer) == scores


def test_cider_is_ten_for_the_same_words_and_zero_by_construction_for_one_image() -> None:
    one = [["a red circle at the top left"]]
    assert cider(["a red circle at the top left"], one) == [0.0]
    references = [["a red circle on the left"], ["two dogs play in deep snow"]]
    same = cider(["A red circle on the left.", "two dogs play in deep snow"], references)
    assert same == pytest.approx([10.0, 10.0])
    worse = cider(["a red square on the left", "snow"], references)
    assert 0 < worse[0] < 10 and 0 < worse[1] < 5
    longer = cider(["a red circle on the left " * 3, "x"], references)
    assert longer[0] < same[0] / 3 and longer[1] == 0  # repetition does not pay
    with pytest.raises(ValueError, match="1 captions for 2"):
        cider(["x"], references)


@pytest.mark.parametrize("profile", ["llava-1.5", "robust"])
def test_an_empty_answer_is_wrong_everywhere(profile: Profile) -> None:
    golds = {
        "answers": ["red"] * 10,
        "letter": "A",
        "letters": ["A"],
        "options": {"A": "x", "B": "y"},
        "box": (0.0, 0.0, 1.0, 1.0),
        "size": (9.0, 9.0),
    }
    asked = question("no", **golds, captions=["a dog"])
    for name in (
        "custom",
        "vqav2",
        "gqa",
        "textvqa",
        "vizwiz",
        "scienceqa",
        "mme",
        "mmbench",
        "seed",
        "refcoco",
        "captions",
    ):
        assert get_benchmark(name).score(asked, "", profile) == 0.0, name


def test_a_letter_alone_is_one_letter() -> None:
    assert choices.letter_only(" B\n") == "B"
    assert choices.letter_only("AB") is None and choices.letter_only("b") is None and choices.letter_only("") is None
    assert choices.stated("A. x", "ABCDE") == "A" and choices.stated("A.", "ABCDE") is None


def test_the_text_of_two_options_is_no_answer() -> None:
    options = {"A": "red", "B": "red", "C": "a red dog"}
    assert choices.by_text("red", options) is None
    assert choices.by_text("It is a red dog.", {"A": "cat", "B": "a red dog"}) == "B"
    assert choices.by_text("cat and dog", {"A": "cat", "B": "dog"}) is None
