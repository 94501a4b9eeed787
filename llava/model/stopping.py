"""Where an answer ends, and which of its text is already certain.

Some templates end an answer with the end-of-sequence token, others with a text (`###`, a newline). Tokens are pieces
of characters, so a stream may only show what later tokens can no longer change.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_PROBE = "xANSWERx"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def end_tokens(model: Any, processor: Any) -> set[int]:
    """Ids that end an answer: the generation configuration's and the tokenizer's end of sequence."""
    named = getattr(model.generation_config, "eos_token_id", None)
    found = {named} if isinstance(named, int) else set(named or ())
    if processor.tokenizer.eos_token_id is not None:
        found.add(processor.tokenizer.eos_token_id)
    return found


def turn_end(processor: Any) -> str | None:
    """The text that the processor's chat template writes behind an answer, or None where it is the end token."""
    if not getattr(processor, "chat_template", None):
        return None
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "q"}]},
        {"role": "assistant", "content": [{"type": "text", "text": _PROBE}]},
    ]
    behind = str(processor.apply_chat_template(messages, tokenize=False)).rpartition(_PROBE)[2]
    eos = processor.tokenizer.eos_token
    special = {str(token) for token in processor.tokenizer.added_tokens_decoder.values() if token.special}
    ends = sorted((behind.find(token), token) for token in special if token in behind)
    # Phi-3 writes `<|end|>` behind an answer and the end of sequence behind the conversation: the first one counts.
    if not behind or (eos and eos in behind and (not ends or ends[0][1] == eos)):
        return None
    return ends[0][1] if ends else behind.strip() or behind


class Unfolding:
    """The text of one answer as its tokens arrive.

    Attributes:
        shown: the text that is certain so far; everything, once `last` was given.
        stopped: a stop text was met; it and what follows are not shown.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = [text for text in stop if text]
        self.shown = ""
        self.stopped = False

    def extend(self, tokens: Sequence[int], *, last: bool) -> str:
        """The new certain text, given all tokens so far; with `last` nothing is held back."""
        certain = len(tokens)
        if not last:
            # A run of byte pieces is decoded as a whole: one more byte can turn all of it into something else.
            names = self._tokenizer.convert_ids_to_tokens(list(tokens))
            # Rows that a matrix has beyond the tokenizer's words (it is rounded up) have no name.
            while certain and _BYTE.fullmatch(names[certain - 1] or ""):
                certain -= 1
        text = self._tokenizer.decode(
            tokens[:certain], skip_special_tokens=not self._stop, clean_up_tokenization_spaces=False
        )
        cut = min((text.find(end) for end in self._stop if end in text), default=-1)
        if cut >= 0:
            self.stopped = True
            text = text[:cut]
        elif not last:
            # A character may be half there, and the end of the text may be the beginning of a stop text.
            text = text.rstrip("\ufffd")
            text = text[: len(text) - self._held_back(text)]
        piece = text[len(self.shown) :] if text.startswith(self.shown) else ""
        self.shown = text if piece or last or self.stopped else self.shown
        return piece

    def _held_back(self, text: str) -> int:
        longest = max((len(end) for end in self._stop), default=1)
        starts = (
            n for n in range(min(longest - 1, len(text)), 0, -1) for end in self._stop if end.startswith(text[-n:])
        )
        return next(starts, 0)
