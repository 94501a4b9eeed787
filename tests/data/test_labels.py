"""Train/serve parity: a training row's ids are the saved processor's, and the loss falls on answers only."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from llava.data.labels import IGNORE_INDEX, Encoded, RowEncoder
from llava.data.records import Record, Turn
from llava.data.templates import get_template, to_messages
from llava.errors import RowError, SettingsError
from tests.data.tokenizers_for_tests import KINDS, make_processor, make_tokenizer

TEMPLATES = (
    "plain", "v0", "v1", "llava_llama_2", "llava_llama_3", "mistral_instruct", "chatml", "qwen3", "tokenizer",
)  # fmt: skip
OWN_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "### Instruction: {{ m['content'] }}\n### Response: {% else %}{{ m['content'] }}{{ eos_token }}\n{% endif %}"
    "{% endfor %}"
)
VISUAL = 4  # (24 / 12)^2


@cache
def serving(kind: str, name: str) -> tuple[Any, RowEncoder, Any]:
    """(processor as reloaded from disk, encoder, template): what serves and what trains."""
    import tempfile

    from transformers import AutoProcessor

    tokenizer = make_tokenizer(kind)
    tokenizer.chat_template = OWN_TEMPLATE
    template = get_template(name, tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        make_processor(tokenizer, template.chat_template()).save_pretrained(folder)
        processor = AutoProcessor.from_pretrained(folder)
    return processor, RowEncoder(template, tokenizer), template


def conversation(*pairs: tuple[str, str], images: int = 1) -> Record:
    turns = [Turn(role, text) for pair in pairs for role, text in zip(("human", "gpt"), pair, strict=True)]  # type: ignore[arg-type]
    return Record("r", tuple(f"{i}.jpg" for i in range(images)), tuple(turns))


def ids_served(processor: Any, record: Record) -> list[int]:
    pictures = [Image.new("RGB", (30, 20), (i, 90, 200)) for i in range(len(record.images))]
    messages = to_messages(record.turns)
    waiting = iter(pictures)
    for message in messages:
        for item in message["content"]:
            if item["type"] == "image":
                item["image"] = next(waiting)
    out = processor.apply_chat_template(messages, tokenize=True, return_dict=True)
    return list(out["input_ids"][0])


ROWS = [
    conversation(("<image>\nWhat is it?", "A red circle.")),
    conversation(("What is it?\n<image>", "A red circle."), ("Where?", "To the left.\nOf it."), ("Sure?", "yes")),
    conversation(("Compare <image> with <image>, please", "0.25, 0.5"), images=2),
    conversation(("<image><image>Which?", " the second "), ("And <image>?", "三角形 🙂 é"), images=3),
    conversation(("How many?", "two"), ("<image>So?", "[0.1, 0.2]"), images=1),
    conversation(("Just text", "just text"), images=0),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_ids_equal_the_saved_processors(kind: str, name: str) -> None:
    processor, encoder, template = serving(kind, name)
    for record in ROWS:
        encoded = encoder.encode(record, [VISUAL] * len(record.images))
        assert encoded.input_ids.tolist() == ids_served(processor, record)
        # the other door of serving engines: text rendered first
        text = processor.apply_chat_template(to_messages(record.turns), tokenize=False)
        assert text == "".join(span.text for span in template.render(record.turns))


@pytest.mark.parametrize("name", TEMPLATES)
def test_texts_with_an_image_in_them_render_as_training_does(name: str) -> None:
    """Engines send `"<image>Q"` as one text, or a text item that holds it; LLaVA's own rows are written like this."""
    processor, _, template = serving("llama", name)
    tight = conversation(("<image>Q and<image>", "A."), ("<image> R", "B <b>"), (" S\n<image>\n", "C"), images=4)
    expected = "".join(span.text for span in template.render(tight.turns))
    roles = {"human": "user", "gpt": "assistant"}
    for content in (lambda text: text, lambda text: [{"type": "text", "text": text}]):
        messages = [{"role": roles[turn.role], "content": content(turn.text)} for turn in tight.turns]
        assert processor.apply_chat_template(messages, tokenize=False) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_many_at_once_are_one_by_one(kind: str, name: str) -> None:
    _, encoder, _ = serving(kind, name)
    control = conversation(("<image>\nWhat?", f"says {encoder.template.eos or '</s>'} literally"))
    rows = [*ROWS, control, *ROWS[::-1]]
    visual = [[VISUAL] * len(record.images) for record in rows]
    visual[2] = [VISUAL]  # one number for two images
    found = encoder.encode_all(rows, visual, file="rows.json")
    assert len(found) == len(rows)
    for record, tokens, got in zip(rows, visual, found, strict=True):
        if isinstance(got, RowError):
            with pytest.raises(RowError) as caught:
                encoder.encode(record, tokens, file="rows.json")
            assert (str(got), got.problem) == (str(caught.value), caught.value.problem)
            continue
        expected = encoder.encode(record, tokens, file="rows.json")
        assert got.input_ids.tolist() == expected.input_ids.tolist()
        assert got.labels.tolist() == expected.labels.tolist()
        assert (got.images, got.cut) == (expected.images, expected.cut)
    assert sum(isinstance(got, RowError) for got in found) >= 2
    assert encoder.encode_all([], []) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_what_is_trained_is_what_comes_after_each_prompt(kind: str, name: str) -> None:
    """A prompt's ids begin the row's ids; the last of them is masked, and the answer begins right after."""
    processor, encoder, template = serving(kind, name)
    for record in ROWS:
        encoded = encoder.encode(record, [VISUAL] * len(record.images))
        ids, labels = encoded.input_ids.tolist(), encoded.labels.tolist()
        ends = []
        for turn in range(1, len(record.turns), 2):
            prompt = template.prompt(record.turns[:turn])
            messages = to_messages(record.turns[:turn])
            assert processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == prompt
            own_bos = bool(template.bos) and prompt.startswith(template.bos)
            prompt_ids = processor.tokenizer(prompt, add_special_tokens=not own_bos)["input_ids"]
            expanded = [i for t in prompt_ids for i in [t] * (VISUAL if t == processor.image_token_id else 1)]
            if name == "tokenizer":
                # "Response: " ends in a space that belongs to the answer's first token: only the ids before it agree
                expanded = expanded[: _common(expanded, ids)]
            elif name == "plain" and turn > 1:
                continue  # later prompts of a plain conversation end in nothing of their own
            assert ids[: len(expanded)] == expanded
            assert name == "tokenizer" or labels[len(expanded)] == ids[len(expanded)] != IGNORE_INDEX
            assert not expanded or labels[len(expanded) - 1] == IGNORE_INDEX
            ends.append(len(expanded))
        assert all(label in (IGNORE_INDEX, token) for label, token in zip(labels, ids, strict=True))
        assert labels[: ends[0]] == [IGNORE_INDEX] * ends[0]


def _common(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_trained_tokens_spell_the_answers_and_their_ends(kind: str, name: str) -> None:
    processor, encoder, template = serving(kind, name)
    for record in ROWS:
        encoded = encoder.encode(record, [VISUAL] * len(record.images))
        runs: list[list[int]] = []
        for before, label in zip([IGNORE_INDEX, *encoded.labels.tolist()], encoded.labels.tolist(), strict=False):
            if label != IGNORE_INDEX:
                if before == IGNORE_INDEX:
                    runs.append([])
                runs[-1].append(label)
        texts = [processor.tokenizer.decode(run, skip_special_tokens=False) for run in runs]
        answers = [turn.text.strip() for turn in record.turns if turn.role == "gpt"]
        if name == "plain":
            assert "".join(texts).replace(" ", "") == "".join(answer + "\n" for answer in answers).replace(" ", "")
            continue
        assert len(texts) == len(answers)
        for text, answer in zip(texts, answers, strict=True):
            end = template.turn_end
            assert text.strip().removesuffix(end).strip() == answer
            assert text.strip().endswith(end)


def test_text_is_tokenised_as_one_and_never_recounted() -> None:
    """The original counts tokens of pieces and voids a row where a count is off by one; here nothing can be off."""
    _, encoder, _ = serving("llama-legacy", "v1")
    record = conversation(*[("<image>\nQ" if i == 0 else f"Q{i} ", f" A  {i}") for i in range(40)])
    encoded = encoder.encode(record, [VISUAL])
    assert (encoded.labels == encoder._backend.token_to_id("</s>")).sum() == 40


words = st.text(
    st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\n\t <>|[]#"), min_size=1, max_size=30
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(KINDS),
    name=st.sampled_from(TEMPLATES),
    texts=st.lists(st.tuples(words, words), min_size=1, max_size=3),
    images=st.lists(st.integers(0, 30), max_size=3),
)
def test_parity_holds_for_any_text(kind: str, name: str, texts: list[tuple[str, str]], images: list[int]) -> None:
    processor, encoder, _ = serving(kind, name)
    words_of = texts[0][0]
    bounds = [0, *sorted(min(place, len(words_of)) for place in images), len(words_of)]
    question = "<image>".join(words_of[a:b] for a, b in itertools.pairwise(bounds))
    pairs = [(question, texts[0][1]), *texts[1:]]
    assume(all(part.strip() for pair in pairs for part in pair))
    record = conversation(*pairs, images=len(images))
    assume(encoder._control is None or not any(encoder._control.search(turn.text) for turn in record.turns))
    encoded = encoder.encode(record, [VISUAL] * len(images))
    assert encoded.input_ids.tolist() == ids_served(processor, record)


def test_rows_are_cut_on_the_right_and_images_only_whole() -> None:
    tokenizer = make_tokenizer("llama")
    record = conversation(("<image>\nWhat?", "A red circle."), ("And <image>?", "Two blue squares."), images=2)
    template = get_template("v1")
    whole = RowEncoder(template, tokenizer).encode(record, [VISUAL, VISUAL])
    places = np.flatnonzero(whole.input_ids == RowEncoder(template, tokenizer).image_token_id)
    for length in range(int(places[VISUAL]) - 3, len(whole.input_ids) + 2):
        cut = RowEncoder(template, tokenizer, max_length=length).encode(record, [VISUAL, VISUAL])
        in_second = places[VISUAL] < length <= places[-1]
        expected = int(places[VISUAL]) if in_second else min(length, len(whole.input_ids))
        assert cut.input_ids.tolist() == whole.input_ids[:expected].tolist()
        assert cut.labels.tolist() == whole.labels[:expected].tolist()
        assert cut.images == (2 if length > places[-1] else 1)
        assert cut.cut == len(whole.input_ids) - expected


def test_images_of_unequal_size_are_cut_whole_wherever_they_stand() -> None:
    """Three images of 2, 5 and 3 visual tokens (AnyRes gives such): cut inside the third, the first two stay."""
    tokenizer, template, sizes = make_tokenizer("llama"), get_template("v1"), [2, 5, 3]
    record = conversation(
        ("<image>\nWhat?", "A circle."), ("And <image>?", "A square."), ("<image>?", "A ring."), images=3
    )
    whole = RowEncoder(template, tokenizer).encode(record, sizes)
    places = np.flatnonzero(whole.input_ids == RowEncoder(template, tokenizer).image_token_id)
    firsts, lasts = [0, 2, 7], [1, 6, 9]  # of each image, among the placeholders
    for length in range(int(places[firsts[1]]) - 2, len(whole.input_ids) + 1):
        cut = RowEncoder(template, tokenizer, max_length=length).encode(record, sizes)
        broken = [int(places[a]) for a, b in zip(firsts, lasts, strict=True) if places[a] < length <= places[b]]
        expected = broken[0] if broken else length
        assert cut.input_ids.tolist() == whole.input_ids[:expected].tolist()
        assert cut.images == sum(length > places[b] for b in lasts)


def test_a_row_with_nothing_left_to_train_on_is_an_error() -> None:
    encoder = RowEncoder(get_template("v1"), make_tokenizer("llama"), max_length=8)
    with pytest.raises(RowError, match="at least one answer token") as caught:
        encoder.encode(conversation(("<image>\nWhat?", "A circle.")), [VISUAL], file="rows.json")
    assert caught.value.problem == "no-labels"


@pytest.mark.parametrize("text", ["a </s> in it", "<unk>", "<s>", "<pad>"])
def test_special_tokens_in_text_are_errors(text: str) -> None:
    encoder = RowEncoder(get_template("v1"), make_tokenizer("llama"))
    with pytest.raises(RowError, match="special tokens") as caught:
        encoder.encode(conversation(("<image>\nWhat?", "A circle."), (text, "yes")), [VISUAL])
    assert (caught.value.problem, caught.value.field) == ("control-token", "conversations[2].value")


def test_visual_tokens_that_do_not_fit_are_an_error() -> None:
    encoder = RowEncoder(get_template("v1"), make_tokenizer("llama"))
    with pytest.raises(RowError) as caught:
        encoder.encode(conversation(("<image>\nWhat?", "A circle.")), [VISUAL, VISUAL])
    assert caught.value.problem == "image-count"


def test_a_tokenizer_without_the_image_token_or_the_end_token_is_refused() -> None:
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=make_tokenizer("llama").backend_tokenizer, eos_token="</s>")
    with pytest.raises(SettingsError, match="eos_token is not set"):
        get_template("v1", PreTrainedTokenizerFast(tokenizer_object=make_tokenizer("llama").backend_tokenizer))
    encoder = RowEncoder(get_template("v1"), bare)  # <image> is among the backend's added tokens already
    assert encoder.image_token_id == make_tokenizer("llama").convert_tokens_to_ids("<image>")
    with pytest.raises(SettingsError, match="'<picture>' is not one of its added tokens"):
        RowEncoder(get_template("v1"), bare, image_token="<picture>")


def test_an_end_token_the_tokenizer_adds_by_itself_is_kept_but_not_trained(tmp_path: Path) -> None:
    from tokenizers import processors

    tokenizer = make_tokenizer("llama-no-bos")
    eos = tokenizer.convert_tokens_to_ids("</s>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", eos)]
    )
    encoded = RowEncoder(get_template("v1"), tokenizer).encode(conversation(("Q", "A"), images=0), [])
    assert encoded.input_ids[-2:].tolist() == [eos, eos]
    assert encoded.labels[-2:].tolist() == [eos, IGNORE_INDEX]


def test_callers_padding_and_truncation_do_not_reach_the_encoder() -> None:
    tokenizer = make_tokenizer("llama")
    encoder = RowEncoder(get_template("v1"), tokenizer)
    record = ROWS[0]
    before = encoder.encode(record, [VISUAL]).input_ids.tolist()
    tokenizer(["x", "y z"], padding="max_length", max_length=64, truncation=True)
    tokenizer.backend_tokenizer.enable_truncation(3)
    assert encoder.encode(record, [VISUAL]).input_ids.tolist() == before


@pytest.mark.parametrize(
    ("labels", "supervised"), [([-100, 5, 6], 2), ([4, 5, 6], 2), ([-100, -100, 6], 1), ([4, -100], 0)]
)
def test_a_label_counts_where_a_token_stands_before_it_to_predict_it(labels: list[int], supervised: int) -> None:
    """The sum over a step's rows divides its loss; the first token of a row is predicted by none."""
    encoded = Encoded(np.array([1, 2, 3][: len(labels)], np.int32), np.array(labels, np.int32), 0, 0)
    assert encoded.supervised == supervised
