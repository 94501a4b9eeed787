"""Recipes, grammars, contexts and the offline teacher."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llava.errors import SettingsError
from llava.expansion.recipe.grammar import Grammar, GrammarError
from llava.expansion.recipe.kinds import Sampling, bundled_expansion_recipes, load_expansion_recipe
from llava.expansion.recipe.requests import all_requests
from llava.expansion.sources.corpus import AnnotatedImage, Box
from llava.expansion.teachers.offline import reply_to

RECIPE = load_expansion_recipe("coco")
LINE = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).filter(
    lambda text: text.strip() == text
)


@given(st.lists(st.tuples(LINE, LINE), min_size=1, max_size=5))
def test_a_reply_reads_back_as_it_was_written(pairs: list[tuple[str, str]]) -> None:
    grammar = Grammar(form="question_answer")
    stray = {"===", "Question:", "Answer:"}
    if not any(part in stray for pair in pairs for part in pair):
        assert grammar.parse(grammar.format(pairs)) == pairs


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for form in ("question_answer", "answer"):
        try:
            pairs = Grammar(form=form).parse(text)
        except GrammarError:
            continue
        assert all(answer.strip() for _, answer in pairs)


def test_the_bundled_recipe_has_what_the_method_asks_for() -> None:
    assert {name: len(kind.examples) for name, kind in RECIPE.kinds.items()} == {
        "conversation": 2,
        "detail": 3,
        "reasoning": 3,
        "conversation-vision": 1,
        "detail-vision": 1,
        "reasoning-vision": 1,
    }
    assert len(RECIPE.questions["brief"]) == 11 and len(RECIPE.questions["detailed"]) == 16
    assert not RECIPE.kinds["conversation"].context.boxes and RECIPE.kinds["detail"].context.boxes
    for kind in RECIPE.kinds.values():
        assert all(message["content"] for message in kind.prefix())


def test_context_is_captions_then_boxes_in_thousandths() -> None:
    image = AnnotatedImage(
        "a.jpg", 1, 640, 480, ("One.", "Two."), (Box("dog", 64, 48, 320, 240), Box("cat", 0, 0, 1, 479.999))
    )
    context = RECIPE.kinds["detail"].context.render(image)
    assert context == "One.\nTwo.\n\ndog: [0.1, 0.1, 0.6, 0.6]\ncat: [0.0, 0.0, 0.002, 1.0]"
    assert RECIPE.kinds["conversation"].context.render(image) == "One.\nTwo."


def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    shutil.copytree(bundled_expansion_recipes()["coco"], folder)
    return folder


def test_a_kind_is_added_without_code(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    kind = {
        "name": "poem",
        "system": "Write two lines about the image.",
        "grammar": {"form": "answer"},
        "questions": "poems",
    }
    (folder / "kinds/poem.yaml").write_text(yaml.safe_dump(kind))
    (folder / "questions/poems.yaml").write_text("- Write a poem.\n")
    recipe = load_expansion_recipe(str(folder))
    image = AnnotatedImage("a.jpg", 1, 10, 10, ("A red bus.",))
    (request,) = all_requests([recipe.kind("poem")], "m", [image], 0)
    assert request.body()["messages"][0]["content"] == "Write two lines about the image."


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"grammer": {}}, "grammer: unknown field"),
        ({"examples": [{"context": "x", "reply": "no blocks"}]}, r"examples\[0\]\.reply is not of its own grammar"),
        ({"context": {"box_line": "{category.__class__}"}}, "context.box_line"),
        ({"grammar": {"form": "answer"}, "examples": []}, "needs 'questions'"),
    ],
)
def test_a_faulty_recipe_is_named(tmp_path: Path, change: dict[str, object], expected: str) -> None:
    folder = copied(tmp_path)
    path = folder / "kinds/conversation.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **change}))
    with pytest.raises(SettingsError, match=expected):
        load_expansion_recipe(str(folder))


def test_an_id_covers_what_is_sent_and_nothing_else() -> None:
    kind = RECIPE.kinds["detail"]
    boxes = (Box("bus", 1, 1, 5, 5),)
    image = AnnotatedImage("a.jpg", 1, 10, 10, ("A red bus.",), boxes)

    def id_of(kind=kind, model="m", image=image, seed=0, extra_body=None, **changes) -> str:  # type: ignore[no-untyped-def]
        kind = kind.model_copy(update=changes)
        return next(all_requests([kind], model, [image], seed, extra_body)).id

    def sampling(**changes: object) -> dict[str, object]:
        return {"sampling": kind.sampling.model_copy(update=changes)}

    sent = {
        id_of(model="n"),
        id_of(image=AnnotatedImage("a.jpg", 1, 10, 10, ("A blue bus.",), boxes)),
        id_of(system="Other words."),
        id_of(**sampling(temperature=0.1)),
        id_of(**sampling(max_tokens=2048)),
        id_of(**sampling(limit_name="max_completion_tokens")),
        id_of(**sampling(extra_body={"reasoning_effort": "low"})),
        id_of(extra_body={"seed": 7}),
    }
    assert len(sent) == 8 and id_of() not in sent
    grammar = kind.grammar.model_copy(update={"max_turns": 3, "min_answer_words": 9})
    not_sent = [
        id_of(seed=1),
        id_of(grammar=grammar),
        id_of(soft_gates=["leakage"]),
        id_of(version=2),
        id_of(expected_output_tokens=9),
        id_of(image=AnnotatedImage("train2017/a.jpg", 1, 10, 10, image.captions, boxes)),
    ]
    assert set(not_sent) == {id_of()}


def test_equal_bodies_are_two_draws_in_the_order_of_asking() -> None:
    images = [AnnotatedImage(f"{name}.jpg", None, 0, 0, (caption,)) for name, caption in zip("abc", "xyx", strict=True)]
    kind = RECIPE.kinds["conversation"]
    ids = [request.id for request in all_requests([kind], "m", images, 0)]
    assert len(set(ids)) == 3
    assert ids == [request.id for request in all_requests([kind], "m", images, 0)]
    # Which image comes first does not matter: whoever asks for the same text a second time gets the second draw.
    assert {request.id for request in all_requests([kind], "m", images[::-1], 0)} == set(ids)


def test_what_is_unset_is_not_sent() -> None:
    image = AnnotatedImage("a.jpg", 1, 10, 10, ("A red bus.",))
    kind = RECIPE.kinds["conversation"]

    def fields(extra_body: dict[str, object] | None = None, **sampling: object) -> dict[str, object]:
        changed = kind.model_copy(update={"sampling": Sampling.model_validate(sampling)})
        body = next(all_requests([changed], "m", [image], 0, extra_body)).body()
        return {name: value for name, value in body.items() if name not in ("model", "messages")}

    assert fields() == {"max_tokens": 1024}
    assert fields(temperature=0.0) == {"temperature": 0.0, "max_tokens": 1024}
    assert fields(max_tokens=None) == {}
    low: dict[str, object] = {"reasoning_effort": "low", "max_tokens": None, "max_completion_tokens": 300}
    assert fields(low) == {"reasoning_effort": "low", "max_completion_tokens": 300}
    flex = kind.model_copy(update={"sampling": Sampling(extra_body={"service_tier": "flex"})})
    bodies = [next(all_requests([flex], "m", [image], 0, over)).body() for over in ({}, {"service_tier": None})]
    assert bodies[0]["service_tier"] == "flex" and "service_tier" not in bodies[1]
    (request,) = all_requests([kind], "m", [image], 0, low)
    assert request.repaired().body()["max_completion_tokens"] == 600 and request.max_tokens == 300
    assert request.repaired().id == request.id
    for name in ("model", "messages", "stream", "n"):
        with pytest.raises(ValueError, match=name):
            Sampling(extra_body={name: 1})


MEANT = [("What is it?", "A dog."), ("Where?", "On a beach.\nIt runs.")]
CANONICAL = "Question:\nWhat is it?\n===\nAnswer:\nA dog.\n===\nQuestion:\nWhere?\n===\nAnswer:\nOn a beach.\nIt runs."


@pytest.mark.parametrize(
    "reply",
    [
        CANONICAL,
        f"```\n{CANONICAL}\n```",
        f"```text\n{CANONICAL}\n```",
        f"Sure! Here is the dialogue:\n\n{CANONICAL}",
        f"Here is the conversation you asked for.\n===\n{CANONICAL}\n===\nLet me know if you need more!",
        "**Question:** What is it?\n**Answer:** A dog.\n\n**Question:** Where?\n**Answer:** On a beach.\nIt runs.",
        "# Question 1:\nWhat is it?\n# Answer 1:\nA dog.\n# Question 2:\nWhere?\n# Answer 2:\nOn a beach.\nIt runs.",
        "1. **Question**: What is it?\n**Answer**: A dog.\n2. **Question**: Where?\n**Answer**: On a beach.\nIt runs.",
        CANONICAL.replace("\n===\n", "\n---\n"),
        CANONICAL.replace("\n===\n", "\n"),
        CANONICAL.replace("\n", "\r\n"),
        CANONICAL.replace("Question:", "question:").replace("Answer:", "ANSWER:"),
    ],
)
def test_what_is_plainly_meant_is_read(reply: str) -> None:
    assert Grammar(form="question_answer").parse(reply) == MEANT


@pytest.mark.parametrize(
    "reply",
    [
        "Answer:\nA dog.\n===\nQuestion:\nWhat is it?",
        "**Answer:** A dog.\n**Question:** What is it?",
        "**Question:** What is it?\n**Question:** Where?\n**Answer:** There.",
        "**Question:** What is it?",
        "What is it?\n===\nA dog.",
        "word " * 100 + "\n" + CANONICAL.replace("===", "---"),
    ],
)
def test_what_is_not_plain_is_refused(reply: str) -> None:
    with pytest.raises(GrammarError):
        Grammar(form="question_answer").parse(reply)


def test_fences_and_greetings_are_taken_off_a_single_answer() -> None:
    answer = Grammar(form="answer")
    for reply in (
        "A dog runs.",
        "```\nA dog runs.\n```",
        "Sure! Here's a detailed description of the image:\n\nA dog runs.",
        "Below is the description:\nA dog runs.",
    ):
        assert answer.parse(reply) == [("", "A dog runs.")]
    listed = "On the table there are three things:\na cup, a fork and a knife."
    assert answer.parse(listed) == [("", listed)]


@pytest.mark.parametrize("name", ["conversation", "detail", "reasoning"])
@pytest.mark.parametrize(
    "captions",
    [
        ("A brown dog catching a red frisbee on a beach.", "Two men watch a dog."),
        ("A man riding a wave.",),
        ("???",),
        ("A black and white photo of two cats.", "Two cats on a couch.", "Cats sleep."),
    ],
)
def test_the_offline_teacher_answers_ordinary_captions_in_form(name: str, captions: tuple[str, ...]) -> None:
    kind = RECIPE.kinds[name]
    boxes = (Box("dog", 10, 10, 100, 100), Box("person", 300, 20, 50, 200), Box("person", 400, 20, 50, 200))
    for shown in ((), boxes):
        image = AnnotatedImage("a.jpg", 1, 640, 480, captions, shown)
        (request,) = all_requests([kind], "m", [image], 0)
        reply = reply_to(request.body())
        assert kind.grammar.parse(reply) and reply == reply_to(request.body())


def test_the_offline_teacher_reads_colours_counts_and_places() -> None:
    kind = RECIPE.kinds["conversation"]
    captions = ("A brown dog and two cats on a beach.", "A brown dog catches a red frisbee.")
    answers: dict[str, str] = {}
    for number in range(40):
        image = AnnotatedImage(f"{number}.jpg", number, 640, 480, (*captions, f"An image {number}."))
        (request,) = all_requests([kind], "m", [image], 0)
        answers |= dict(kind.grammar.parse(reply_to(request.body())))
    assert answers["What color is the dog?"] == "brown" and answers["What color is the frisbee?"] == "red"
    assert answers["How many cats are there?"] == "two"
    assert any(answer == "no" for question, answer in answers.items() if question.startswith("Is there"))
