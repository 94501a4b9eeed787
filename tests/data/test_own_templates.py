"""Chat templates of families as their tokenizers ship them: which part of the text is an answer, and what is refused.

The sources are cut down to what decides: how a turn ends, what closes a conversation, what another turn changes.
"""

from __future__ import annotations

from typing import Any

import pytest

from llava.data.records import Turn
from llava.data.templates import get_template
from llava.errors import DataError, SettingsError
from tests.data.tokenizers_for_tests import make_tokenizer

TALK = [Turn("human", "<image>\nQ"), Turn("gpt", "A"), Turn("human", "R"), Turn("gpt", "B")]
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI_3 = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
# Qwen 3: the thought stands in front of the last answer only.
QWEN_3 = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DATED = "Today: {{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"


def own(source: str, *special: str) -> Any:
    tokenizer = make_tokenizer("llama")
    tokenizer.add_special_tokens({"extra_special_tokens": list(special)}, replace_extra_special_tokens=False)
    tokenizer.chat_template = source
    return tokenizer


@pytest.mark.parametrize(
    ("source", "special", "trained", "closing"),
    [
        (GEMMA, ("<start_of_turn>", "<end_of_turn>"), ["A<end_of_turn>", "B<end_of_turn>"], "\n"),
        (PHI_3, ("<|end|>", "<|user|>", "<|assistant|>"), ["A<|end|>", "B<|end|>"], "\n</s>"),
    ],
)
def test_an_answer_is_trained_through_its_own_end(
    source: str, special: tuple[str, ...], trained: list[str], closing: str
) -> None:
    tokenizer = own(source, *special)
    template = get_template("tokenizer", tokenizer)
    spans = template.render(TALK)
    assert [span.text for span in spans if span.trained] == trained
    assert spans[-1].text == closing
    messages = [{"role": "user" if t.role == "human" else "assistant", "content": t.text} for t in TALK]
    assert "".join(span.text for span in spans) == tokenizer.apply_chat_template(messages, tokenize=False)
    prompt = template.prompt(TALK[:3])
    assert "".join(span.text for span in spans).startswith(prompt + "B")


def test_what_ends_an_answer_ends_generation() -> None:
    """Phi-3 closes a conversation with the end of sequence, but an answer with `<|end|>`, which is what is trained."""
    from llava.model.stopping import turn_end
    from tests.data.tokenizers_for_tests import make_processor

    for source, special, end in (
        (PHI_3, ("<|end|>", "<|user|>", "<|assistant|>"), "<|end|>"),
        (GEMMA, ("<start_of_turn>", "<end_of_turn>"), "<end_of_turn>"),
    ):
        tokenizer = own(source, *special)
        assert turn_end(make_processor(tokenizer, get_template("tokenizer", tokenizer).chat_template())) == end


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    template = get_template("tokenizer", own(QWEN_3, "<|im_start|>", "<|im_end|>"))
    with pytest.raises(DataError, match=r"changes earlier text .* named template \(v1, chatml, qwen3"):
        template.render(TALK)


def test_a_template_with_todays_date_is_refused() -> None:
    with pytest.raises(SettingsError, match="writes today's date"):
        get_template("tokenizer", own(DATED))


def test_thinking_can_be_asked_for_and_is_off_otherwise() -> None:
    tokenizer = own("x", "<|im_start|>", "<|im_end|>")
    source = get_template("qwen3", tokenizer).chat_template()
    messages = [{"role": "user", "content": "Q"}]
    prompt = {
        value: tokenizer.apply_chat_template(
            messages, chat_template=source, tokenize=False, add_generation_prompt=True, enable_thinking=value
        )
        for value in (True, False)
    }
    assert prompt[True] == "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    assert prompt[False] == prompt[True] + "<think>\n\n</think>\n\n"
    assert prompt[False] == get_template("qwen3", tokenizer).prompt([Turn("human", "Q")])
