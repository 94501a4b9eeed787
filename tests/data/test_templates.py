"""Templates: the published texts letter for letter, and one text for training and serving in whatever form."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.data.records import Turn
from llava.data.templates import Span, get_template, set_apart, to_messages
from llava.errors import DataError, SettingsError
from tests.data.tokenizers_for_tests import make_tokenizer

TALK = [Turn("human", "<image>\nQ"), Turn("gpt", "A"), Turn("human", "R"), Turn("gpt", "B")]
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


@pytest.mark.parametrize(
    ("name", "text", "trained"),
    [
        ("v1", f"{VICUNA} USER: <image>\nQ ASSISTANT: A</s>USER: R ASSISTANT: B</s>", [" A</s>", " B</s>"]),
        ("plain", "<image>A\nB\n", ["A\n", "B\n"]),
        (
            "v0",
            "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
            "detailed, and polite answers to the human's questions."
            "###Human: <image>\nQ###Assistant: A###Human: R###Assistant: B###",
            [" A###", " B###"],
        ),
        (
            "llava_llama_2",
            "[INST] <<SYS>>\nYou are a helpful language and vision assistant. You are able to understand the visual "
            "content that the user provides, and assist the user with a variety of tasks using natural language."
            "\n<</SYS>>\n\n"
            "<image>\nQ [/INST] A </s><s>[INST] R [/INST] B </s>",
            [" A </s>", " B </s>"],
        ),
        ("mistral_instruct", "[INST] <image>\nQ [/INST] A</s>[INST] R [/INST] B</s>", [" A</s>", " B</s>"]),
        (
            # LLaVA-NeXT's conversation of that name, as the tokenizer of Llama 3 writes it.
            "llava_llama_3",
            "<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and vision assistant. You are "
            "able to understand the visual content that the user provides, and assist the user with a variety of tasks"
            " using natural language.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n<image>\nQ<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nR"
            "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nB<|eot_id|>",
            ["A<|eot_id|>", "B<|eot_id|>"],
        ),
        (
            # Qwen 3's own prompt with enable_thinking=False, before every answer.
            "qwen3",
            "<|im_start|>user\n<image>\nQ<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nA<|im_end|>\n"
            "<|im_start|>user\nR<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nB<|im_end|>\n",
            ["A<|im_end|>", "B<|im_end|>"],
        ),
        (
            "chatml",
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\nQ<|im_end|>\n"
            "<|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nR<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n",
            ["A<|im_end|>", "B<|im_end|>"],
        ),
    ],
)
def test_texts_are_the_published_ones(name: str, text: str, trained: list[str]) -> None:
    spans = get_template(name).render(TALK)
    assert "".join(span.text for span in spans) == text
    assert [span.text for span in spans if span.trained] == trained
    prompt = get_template(name).prompt(TALK[:3])
    assert text.startswith(prompt)
    assert text[len(prompt) :].startswith(trained[1])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<image>Q", "<image>\nQ"),
        ("<image>\nQ", "<image>\nQ"),
        ("Q\n<image>", "Q\n<image>"),
        ("Q<image>", "Q\n<image>"),
        ("In <image> what", "In <image> what"),
        ("<image><image>Q", "<image>\n<image>\nQ"),
        ("  <image> Q ", "<image> Q"),
        ("Q", "Q"),
    ],
)
def test_an_image_is_set_apart_from_words(text: str, expected: str) -> None:
    assert set_apart(text) == expected
    assert set_apart(expected) == expected


NAMES = ("plain", "v0", "v1", "llava_llama_2", "mistral_instruct", "chatml")
parts = st.lists(
    st.sampled_from(["<image>", "Q", " ", "\n", "what's <this>", "{{ x }}", "é🙂", "'"]), min_size=1, max_size=6
)


def jinja(template: Any, messages: list[dict[str, Any]], **options: Any) -> str:
    tokenizer = make_tokenizer("llama")
    text = tokenizer.apply_chat_template(messages, chat_template=template.chat_template(), tokenize=False, **options)
    assert isinstance(text, str)
    return text


@pytest.mark.slow
@given(name=st.sampled_from(NAMES), questions=st.lists(parts, min_size=1, max_size=3), answer=st.text(min_size=1))
def test_the_chat_template_renders_the_training_text(name: str, questions: list[list[str]], answer: str) -> None:
    template = get_template(name, make_tokenizer("llama"))
    turns = [turn for question in questions for turn in (Turn("human", "".join(question)), Turn("gpt", answer))]
    assert jinja(template, to_messages(turns)) == "".join(span.text for span in template.render(turns))
    asked = turns[:-1]
    assert jinja(template, to_messages(asked), add_generation_prompt=True) == template.prompt(asked)


@given(parts=parts)
def test_items_in_any_grouping_become_the_same_text(parts: list[str]) -> None:
    """What a client sends as items is what a row says in one string."""
    turns = [Turn("human", "".join(parts)), Turn("gpt", "A")]
    items = [{"type": "image"} if part == "<image>" else {"type": "text", "text": part} for part in parts]
    messages = [{"role": "user", "content": items}, *to_messages(turns[1:])]
    assert jinja(get_template("v1"), messages) == "".join(span.text for span in get_template("v1").render(turns))


def test_a_plain_string_and_a_system_message_are_taken_too() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<image>\nQ"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "R"}]},
    ]
    text = jinja(get_template("v1"), messages, add_generation_prompt=True)
    assert text == "Be brief. USER: <image>\nQ ASSISTANT: A</s>USER: <image>\nR ASSISTANT:"


def test_the_tokenizers_own_template_gives_spans_and_survives_being_saved() -> None:
    tokenizer = make_tokenizer("llama")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' if m['role'] == 'user' else "
        "'bot: ' + m['content'] + eos_token + '\\n' }}{% endfor %}{% if add_generation_prompt %}bot: {% endif %}"
    )
    template = get_template("tokenizer", tokenizer)
    spans = [
        Span("user: <image>\nQ\nbot: ", False),
        Span("A</s>", True),
        Span("\nuser: R\nbot: ", False),
        Span("B</s>", True),
        Span("\n", False),
    ]
    assert template.render(TALK) == spans
    assert jinja(template, to_messages(TALK)) == "".join(span.text for span in spans)
    tokenizer.chat_template = template.chat_template()  # as the processor is saved
    again = get_template("tokenizer", tokenizer)
    assert again.chat_template() == template.chat_template()
    assert again.render(TALK) == spans


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    tokenizer = make_tokenizer("llama")
    tokenizer.chat_template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(DataError, match="named template"):
        get_template("tokenizer", tokenizer).render(TALK)


def test_names_and_tokenizers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SettingsError, match="'vicuna'; expected one of plain, v0, v1"):
        get_template("vicuna")
    with pytest.raises(SettingsError, match="has no chat template"):
        get_template("tokenizer", make_tokenizer("llama"))
    with pytest.raises(ValueError, match="ends with a human turn"):
        get_template("v1").prompt(TALK)


def test_the_end_token_is_the_tokenizers_own() -> None:
    template = get_template("v1", make_tokenizer("byte-level"))
    assert template.turn_end == "<|endoftext|>"
    assert template.render(TALK)[1] == Span(" A<|endoftext|>", True)
    assert get_template("chatml", make_tokenizer("byte-level")).turn_end == "<|im_end|>"
