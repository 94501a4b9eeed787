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
from llava.expansion.recipe.kinds import bundled_expansion_recipes, load_expansion_recipe
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


def test_ids_depend_on_what_decides_a_reply_and_on_nothing_else() -> None:
    kind = RECIPE.kinds["detail"]
    image = AnnotatedImage("a.jpg", 1, 10, 10, ("A red bus.",), (Box("bus", 1, 1, 5, 5),))

    def id_of(kind=kind, model="m", image=image, seed=0) -> str:  # type: ignore[no-untyped-def]
        return next(all_requests([kind], model, [image], seed)).id

    others = {
        id_of(model="n"),
        id_of(image=AnnotatedImage("b.jpg", 1, 10, 10, image.captions, image.boxes)),
        id_of(image=AnnotatedImage("a.jpg", 1, 10, 10, ("A blue bus.",), image.boxes)),
        id_of(kind=kind.model_copy(update={"version": 2})),
        id_of(kind=kind.model_copy(update={"sampling": kind.sampling.model_copy(update={"temperature": 0.1})})),
    }
    assert len(others) == 5 and id_of() not in others
    assert id_of(seed=1) == id_of()


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
