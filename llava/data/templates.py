"""Templates: how a conversation becomes one text, in training and in serving.

A template gives the text as spans, each trained or not; the tokenizer never decides where a label falls. The same
template writes itself out as a jinja chat template, which is saved with the processor, so that an inference engine
builds the very text the model was trained on. The first begin-of-sequence token is left to the tokenizer, as in the
hub's LLaVA checkpoints, so `processor(text=...)` and `apply_chat_template(tokenize=True)` give the same ids.

Texts are stripped at both ends. An image next to a word is set apart by a newline, in training and in serving alike
(`<image>Q` and `[image, "Q"]` both become `<image>\\nQ`); where white space stands already, nothing is added.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llava.data import chat_templates as jinja
from llava.data.records import Turn
from llava.errors import DataError, SettingsError
from llava.image_token import IMAGE_TOKEN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_APART = re.compile(rf"(?<=\S)(?={re.escape(IMAGE_TOKEN)})|(?<={re.escape(IMAGE_TOKEN)})(?=\S)")


@dataclass(frozen=True)
class Span:
    """A stretch of text; `trained`: the loss falls on its tokens."""

    text: str
    trained: bool


def set_apart(text: str) -> str:
    """Strip `text`, and put a newline between an `<image>` and a character that is not white space."""
    return _APART.sub("\n", text.strip())


def to_messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The same conversation in the form `apply_chat_template` takes: image and text items in their order."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        items: list[dict[str, str]] = []
        for part in re.split(f"({re.escape(IMAGE_TOKEN)})", turn.text):
            if part == IMAGE_TOKEN:
                items.append({"type": "image"})
            elif part:
                items.append({"type": "text", "text": part})
        messages.append({"role": "user" if turn.role == "human" else "assistant", "content": items})
    return messages


@dataclass(frozen=True)
class Template(ABC):
    """Base of all templates; `eos` is the tokenizer's end-of-sequence token (see `get_template`)."""

    name: str
    eos: str = "</s>"
    bos: str = "<s>"

    @abstractmethod
    def render(self, turns: Sequence[Turn]) -> list[Span]:
        """The conversation as spans; joined, they are the text that is tokenised."""

    @abstractmethod
    def prompt(self, turns: Sequence[Turn]) -> str:
        """The text up to where the next answer starts; `turns` end with a human one."""

    @abstractmethod
    def chat_template(self) -> str:
        """The jinja source that renders the same text."""

    @property
    def turn_end(self) -> str:
        """What the model writes when it has finished an answer; generation stops there."""
        return self.eos

    def bound(self, tokenizer: PreTrainedTokenizerBase) -> Template:
        """This template with the tokenizer's own special tokens."""
        return replace(self, eos=_required(tokenizer, "eos_token"), bos=tokenizer.bos_token or "")


@dataclass(frozen=True)
class _Written(Template):
    """A template whose turns are written by rule: opening (with system text), question, answer."""

    system: str = ""
    source: str = ""
    stop: str | None = None

    def _question(self, text: str, first: bool) -> str:
        raise NotImplementedError

    def _answer(self, text: str) -> list[Span]:
        raise NotImplementedError

    def render(self, turns: Sequence[Turn]) -> list[Span]:
        spans: list[Span] = []
        for number, turn in enumerate(turns):
            if turn.role == "human":
                spans.append(Span(self._question(set_apart(turn.text), number == 0), False))
            else:
                spans += self._answer(turn.text.strip())
        return spans

    def prompt(self, turns: Sequence[Turn]) -> str:
        if not turns or turns[-1].role != "human":
            raise ValueError("a prompt ends with a human turn")
        return "".join(span.text for span in self.render(turns))

    def chat_template(self) -> str:
        return jinja.FLATTEN + self.source.replace("SYSTEM_TEXT", self.system.replace("\n", "\\n").replace("'", "\\'"))

    @property
    def turn_end(self) -> str:
        return self.eos if self.stop is None else self.stop


class _Plain(_Written):
    """Stage 1: `<image>caption\\n`. The question's words are dropped; the newline is trained, there is no end token."""

    def _question(self, text: str, first: bool) -> str:
        return IMAGE_TOKEN * text.count(IMAGE_TOKEN)

    def _answer(self, text: str) -> list[Span]:
        return [Span(text + "\n", True)]


class _V0(_Written):
    def _question(self, text: str, first: bool) -> str:
        opening = f"{self.system}###" if first else ""
        return f"{opening}Human: {text}###Assistant:"

    def _answer(self, text: str) -> list[Span]:
        return [Span(f" {text}###", True)]


class _V1(_Written):
    """Vicuna v1.1's conversation (the original's `v1`)."""

    def _question(self, text: str, first: bool) -> str:
        opening = f"{self.system} " if first else ""
        return f"{opening}USER: {text} ASSISTANT:"

    def _answer(self, text: str) -> list[Span]:
        return [Span(f" {text}{self.eos}", True)]


class _Llama2(_Written):
    """Llama-2-chat: every later exchange begins with a begin-of-sequence token of its own."""

    def _question(self, text: str, first: bool) -> str:
        if first:
            return f"[INST] <<SYS>>\n{self.system}\n<</SYS>>\n\n{text} [/INST]"
        return f"{self.bos}[INST] {text} [/INST]"

    def _answer(self, text: str) -> list[Span]:
        return [Span(f" {text} {self.eos}", True)]


class _Mistral(_Written):
    def _question(self, text: str, first: bool) -> str:
        return f"[INST] {text} [/INST]"

    def _answer(self, text: str) -> list[Span]:
        return [Span(f" {text}{self.eos}", True)]


class _ChatML(_Written):
    def _question(self, text: str, first: bool) -> str:
        opening = f"<|im_start|>system\n{self.system}<|im_end|>\n" if first else ""
        return f"{opening}<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"

    def _answer(self, text: str) -> list[Span]:
        return [Span(f"{text}<|im_end|>", True), Span("\n", False)]


class _Llama3(_Written):
    """Llama 3's headers, as LLaVA-NeXT's `llava_llama_3`."""

    def _question(self, text: str, first: bool) -> str:
        opening = f"<|start_header_id|>system<|end_header_id|>\n\n{self.system}<|eot_id|>" if first else ""
        user = f"<|start_header_id|>user<|end_header_id|>\n\n{text}<|eot_id|>"
        return f"{opening}{user}<|start_header_id|>assistant<|end_header_id|>\n\n"

    def _answer(self, text: str) -> list[Span]:
        return [Span(f"{text}<|eot_id|>", True)]


class _Qwen3(_Written):
    """Qwen 3 with thinking off: every answer follows the empty thought that its own `enable_thinking=False` writes.

    Qwen's own template writes that thought in front of the last answer only, so that a conversation of several turns
    would train its earlier answers in another form than they are asked for.
    """

    def _question(self, text: str, first: bool) -> str:
        return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n{jinja.NO_THOUGHT}"

    def _answer(self, text: str) -> list[Span]:
        return [Span(f"{text}<|im_end|>", True), Span("\n", False)]


@dataclass(frozen=True)
class _Tokenizers(Template):
    """The tokenizer's own chat template; spans are found by rendering the conversation turn by turn."""

    tokenizer: Any = None
    source: str = ""

    def bound(self, tokenizer: PreTrainedTokenizerBase) -> Template:
        source = tokenizer.chat_template
        if not source:
            raise SettingsError(
                "template: found 'tokenizer', but this tokenizer has no chat template; expected one of the named ones"
            )
        if not isinstance(source, str):
            raise SettingsError(
                "template: found 'tokenizer', but this tokenizer has several chat templates; expected one"
            )
        if "strftime_now" in source:
            raise SettingsError(
                "template: found 'tokenizer', but this tokenizer's chat template writes today's date, so that a model"
                " would be served another text than it was trained on; expected a named one, such as llava_llama_3"
            )
        # A processor of ours has put FLATTEN in front already.
        source = source.removeprefix(jinja.FLATTEN)
        tokens = {"eos": _required(tokenizer, "eos_token"), "bos": tokenizer.bos_token or ""}
        return replace(self, **tokens, tokenizer=tokenizer, source=source)

    def _text(self, turns: Sequence[Turn], *, open_ended: bool) -> str:
        roles = {"human": "user", "gpt": "assistant"}
        messages = [
            {"role": roles[t.role], "content": set_apart(t.text) if t.role == "human" else t.text.strip()}
            for t in turns
        ]
        text = self.tokenizer.apply_chat_template(
            messages, chat_template=self.source, tokenize=False, add_generation_prompt=open_ended
        )
        assert isinstance(text, str)
        return text

    def render(self, turns: Sequence[Turn]) -> list[Span]:
        whole = self._text(turns, open_ended=False)
        spans: list[Span] = []
        done = 0
        for number in range(1, len(turns), 2):
            before = self._text(turns[:number], open_ended=True)
            after = self._text(turns[: number + 1], open_ended=False)
            # Phi-3 closes every conversation with an end-of-text that goes when a turn is added.
            grown = after if number == len(turns) - 1 else after.removesuffix(self.eos)
            if not (whole.startswith(before) and whole.startswith(grown) and len(before) < len(grown)):
                raise DataError(
                    "template: the tokenizer's chat template changes earlier text when a turn is added, so the places"
                    " of answers cannot be told; expected a named template (v1, chatml, qwen3, ...)"
                )
            trained = self._through_its_end(grown[len(before) :], turns[number].text.strip())
            spans += [Span(whole[done : len(before)], False), Span(trained, True)]
            done = len(before) + len(trained)
        return [span for span in (*spans, Span(whole[done:], False)) if span.text]

    def _through_its_end(self, answer: str, text: str) -> str:
        """The answer through the special token that ends it: `<|end|>`, `<end_of_turn>` or the end of sequence."""
        start = answer.find(text) + len(text) if text in answer else 0
        special = [str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        ends = [(answer.find(token, start), token) for token in {*special, self.eos}]
        at, token = min(((at, token) for at, token in ends if at >= 0), default=(len(answer), ""))
        return answer[: at + len(token)]

    def prompt(self, turns: Sequence[Turn]) -> str:
        return self._text(turns, open_ended=True)

    def chat_template(self) -> str:
        return jinja.FLATTEN + self.source


_HUMAN = "The assistant gives helpful, detailed, and polite answers to the {}'s questions."
_TEMPLATES: dict[str, Template] = {
    "plain": _Plain("plain", source=jinja.PLAIN, stop="\n"),
    "v0": _V0(
        "v0",
        system=f"A chat between a curious human and an artificial intelligence assistant. {_HUMAN.format('human')}",
        source=jinja.V0,
        stop="###",
    ),
    "v1": _V1(
        "v1",
        system=f"A chat between a curious user and an artificial intelligence assistant. {_HUMAN.format('user')}",
        source=jinja.V1,
    ),
    "llava_llama_2": _Llama2(
        "llava_llama_2",
        system="You are a helpful language and vision assistant. You are able to understand the visual content that the"
        " user provides, and assist the user with a variety of tasks using natural language.",
        source=jinja.LLAMA_2,
    ),
    "llava_llama_3": _Llama3(
        "llava_llama_3",
        system="You are a helpful language and vision assistant. You are able to understand the visual content that the"
        " user provides, and assist the user with a variety of tasks using natural language.",
        source=jinja.LLAMA_3,
        stop="<|eot_id|>",
    ),
    "qwen3": _Qwen3("qwen3", source=jinja.QWEN_3, stop="<|im_end|>"),
    "mistral_instruct": _Mistral("mistral_instruct", source=jinja.MISTRAL),
    "chatml": _ChatML("chatml", system="You are a helpful assistant.", source=jinja.CHATML, stop="<|im_end|>"),
    "tokenizer": _Tokenizers("tokenizer"),
}


def get_template(name: str, tokenizer: PreTrainedTokenizerBase | None = None) -> Template:
    """A template by its recipe name; with `tokenizer`, bound to its special tokens.

    Raises:
        SettingsError: no such template, or the tokenizer lacks what it needs.
    """
    if name not in _TEMPLATES:
        raise SettingsError(f"template: found {name!r}; expected one of {', '.join(_TEMPLATES)}")
    template = _TEMPLATES[name]
    return template if tokenizer is None else template.bound(tokenizer)


def _required(tokenizer: PreTrainedTokenizerBase, token: str) -> str:
    value = getattr(tokenizer, token)
    if not value:
        raise SettingsError(f"tokenizer: {token} is not set; a template needs it to end an answer")
    return str(value)
