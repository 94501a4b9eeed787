"""How many tokens a text is: by the model's own tokenizer where its file is known, else by a stated estimate."""

from __future__ import annotations

import re

from llava import storage
from llava.errors import SettingsError

_PIECES = re.compile(r"[^\W\d_]+|\d{1,3}|[^\w\s]|_")
_CHAT_OVERHEAD = 4  # role markers around each message


class TokenCounter:
    """Counts tokens.

    Args:
        tokenizer: path or URI of a `tokenizer.json` or of a folder with one; empty: estimate.

    Raises:
        SettingsError: the file is no tokenizer.
    """

    def __init__(self, tokenizer: str = "") -> None:
        self.exact = bool(tokenizer)
        self._tokenizer = None
        if tokenizer:
            from tokenizers import Tokenizer

            uri = tokenizer if tokenizer.endswith(".json") else storage.join(tokenizer, "tokenizer.json")
            try:
                self._tokenizer = Tokenizer.from_str(storage.read_text(uri))
            except Exception as error:  # the library raises bare Exception for a file it cannot use
                raise SettingsError(f"tokenizer: {uri}: {error}") from error

    def count(self, text: str) -> int:
        """Tokens of a text. The estimate: one per punctuation mark and per three digits, words by their length."""
        if self._tokenizer is not None:
            return len(self._tokenizer.encode(text, add_special_tokens=False).ids)
        return sum(1 + max(0, len(piece) - 3) // 7 for piece in _PIECES.findall(text))

    def messages(self, messages: list[dict[str, str]]) -> int:
        """Tokens of chat messages, role markers included."""
        return sum(self.count(message["content"]) + _CHAT_OVERHEAD for message in messages)
