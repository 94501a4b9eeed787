"""Scores as the scorers that others publish with compute them, written down with their source.

Nothing here was computed by our code: where a rule is simple enough, by hand; else by the source that is named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from llava.evaluation import choices, statistics
from llava.evaluation.benchmark import Question
from llava.evaluation.benchmarks import get_benchmark
from llava.evaluation.cider import cider
from llava.evaluation.statistics import Interval
from llava.evaluation.vqa_score import accuracy

# Candidate, references (| between them), and its score by `Cider().compute_score` of pycocoevalcap 1.2 over all,
# without a tokenizer: the captions have neither case nor punctuation. Repetition is clipped, a wrong length penalised.
CIDER: list[tuple[str, str, float]] = [
    (
        "a man riding a wave on top of a surfboard",
        "a man riding a wave on a surfboard in the ocean|"
        "a surfer rides a large wave|"
        "a person on a surf board riding a wave",
        2.1177317329817322,
    ),
    (
        "a man a man a man riding a wave",
        "a man riding a wave on a surfboard|the man is surfing a big wave",
        1.897418136418637,
    ),
    (
        "two dogs",
        "two dogs are playing with a red ball in the grass|a pair of dogs run after a ball on a green lawn",
        0.4558062237384747,
    ),
    (
        "a kitchen with a stove and a sink",
        "a kitchen with a stove and a sink|a small kitchen has a stove a sink and white cabinets",
        6.0870700924242005,
    ),
    (
        "a bus is parked on the side of the street next to a tall building with many windows",
        "a bus parked on the street|a red bus next to a building",
        0.3929410910978598,
    ),
    (
        "zebras grazing in a field",
        "three zebras grazing in a green field|zebras stand in the tall grass",
        3.1830488047270267,
    ),
    (
        "a plate of food",
        "a white plate topped with meat and vegetables|a plate of food with broccoli and meat",
        2.641105660795991,
    ),
    (
        "the the the the",
        "a clock tower in the middle of a city|the tall clock tower has a blue sky behind it",
        0.03485833039613938,
    ),
    (
        "a clock tower in a city",
        "a clock tower in the middle of a city|the tall clock tower has a blue sky behind it",
        2.7398782711696104,
    ),
    ("a woman holding an umbrella in the rain", "a woman with an umbrella walks in the rain", 3.435957142210346),
    (
        "people sitting at a table",
        "a group of people sitting at a table with food|"
        "several people eat dinner together at a long table|"
        "people sitting around a table|"
        "friends having a meal",
        2.302553731022754,
    ),
    ("a cat", "a cat sleeping on a laptop|a black cat lies on a computer keyboard", 1.3871663909571696),
    ("red umbrella", "a plane flying in the sky|an airplane in flight", 0.0),
]

# Answer, golds, accuracy by `VQAEval.evaluate` of GT-Vision-Lab/VQA (PythonEvaluationTools/vqaEvaluation/vqaEval.py).
VQA: list[tuple[str, list[str], float]] = [
    ("red", ["blue"], 0.0),
    ("red", ["red", "blue"], 1 / 6),
    ("red", ["red", "red"], 1 / 3),
    ("red", ["red", "red", "blue"], 4 / 9),
    ("red", ["red"] * 3, 2 / 3),
    ("red", ["red"] * 2 + ["blue"] * 2, 1 / 2),
    ("Two", ["2"] * 3 + ["two", "three"], 1.0),
    ("red", ["red"] * 3 + ["blue"] * 3, 5 / 6),
    ("red", ["red"] * 4 + ["blue"] * 3, 1.0),
    ("red", ["red"] * 3 + ["blue"] * 5, 7 / 8),
    ("red", ["red"] * 2 + ["blue"] * 7, 16 / 27),
    ("The dog.", ["dog", "a dog", "dogs", "cat", "dog", "puppy", "dog park", "Dog", "the dog", "hound"], 1.0),
    ("1,000", ["1000"] * 5 + ["1,000"] * 5, 1.0),
    ("dont know", ["don't know"] * 6 + ["unsure"] * 4, 1.0),
    ("the net", ["net"] * 10, 0.0),
    ("net", ["net"] * 10, 1.0),
    ("3.5 feet", ["3.5 feet"] * 2 + ["3 feet"] * 8, 0.6),
    ("on/off", ["on off"] * 4 + ["off"] * 6, 1.0),
    ("No.", ["no"] * 9 + ["yes"], 1.0),
    ("none", ["0"] * 3 + ["none"] * 2 + ["1"] * 5, 1.0),
]

# Answer, what `eval_pope` of haotian-liu/LLaVA (llava/eval/eval_pope.py) reads in it.
POPE: list[tuple[str, str]] = [
    ("Yes", "yes"),
    ("No", "no"),
    ("Yes. No, wait.", "yes"),  # the first sentence alone
    ("No. Yes.", "no"),
    ("There is a dog. It is not small.", "yes"),
    ("There is not a dog", "no"),
    ("No, there is none", "no"),  # commas go before words are split
    ("There is,no dog", "yes"),  # "isno": they go without a blank
    ("NO", "yes"),
    ("NO. no", "yes"),
    ("No\nbecause it is empty", "yes"),  # split at blanks only
    (". No", "yes"),  # the first sentence is empty
    ("", "yes"),
    ("I can see no dog.", "no"),
]


def test_cider_is_pycocoevalcaps() -> None:
    ours = cider([candidate for candidate, _, _ in CIDER], [references.split("|") for _, references, _ in CIDER])
    assert ours == pytest.approx([score for _, _, score in CIDER], abs=1e-12)
    assert float(np.mean(ours)) == pytest.approx(2.0519642775338416, abs=1e-12)


@pytest.mark.parametrize(("answer", "golds", "score"), VQA)
def test_vqa_accuracy_is_the_official_scorers(answer: str, golds: list[str], score: float) -> None:
    assert accuracy(answer, golds, plain_if_unanimous=True) == pytest.approx(score, abs=1e-9)


def test_a_single_gold_is_scored_by_equality() -> None:
    """The official scorer leaves that one out and gives 0 to everybody; no file of its own has less than ten."""
    assert accuracy("red", ["red"], plain_if_unanimous=True) == 1.0


@pytest.mark.parametrize(("answer", "reading"), POPE)
def test_pope_is_read_as_the_original_reads_it(answer: str, reading: str) -> None:
    asked = Question("1", ("i.jpg",), "q", reading, "random", "i.jpg", {})
    assert get_benchmark("pope").scored(asked, answer).scores["llava-1.5"] == 1


def of_a_mean(scores: Sequence[float]) -> Interval:
    values = np.asarray(scores, dtype=float)
    return statistics.bootstrap_statistic(
        lambda chosen: float(values[chosen].mean()), range(len(values)), resamples=2000
    )


@pytest.mark.parametrize("bootstrap", [lambda scores: statistics.bootstrap(scores, range(len(scores))), of_a_mean])
def test_a_bootstrap_interval_holds_95_and_not_90_in_100(bootstrap: Callable[[Sequence[float]], Interval]) -> None:
    """A hundred scores of 0 and a hundred of 2: the sum of a resample is twice a binomial with n = 200, p = 1/2.

    Its table: 95 % lie from 86 to 114, 90 % from 88 to 112. Two thousand resamples place each end to one or so.
    """
    interval = bootstrap([0.0, 2.0] * 100)
    assert interval.value == 1.0
    assert 100 * interval.low == pytest.approx(86, abs=1.1)
    assert 100 * interval.high == pytest.approx(114, abs=1.1)


@pytest.mark.parametrize("answer", ["E", "E. the fifth", "The answer is E."])
def test_a_letter_beyond_the_options_is_no_answer(answer: str) -> None:
    """ScienceQA's questions have two to five options; `eval_science_qa.py` of haotian-liu/LLaVA takes such a letter for
    wrong, because no option has it."""
    assert choices.stated(answer, "ABCDE") == "E"
    assert choices.stated(answer, "ABCD") is None
