"""Characters: what no one sees, or what shows that bytes were read in the wrong encoding."""

from __future__ import annotations

import re
import unicodedata

from llava.expansion.gates.base import Sample

_ALLOWED = frozenset("\n\t\u200c\u200d\ufe0e\ufe0f")  # joiners and variation selectors belong to scripts and emoji
_ODD_CATEGORIES = frozenset(("Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"))
_PLAIN = re.compile(r"[\n\t\x20-\x7e]*\Z")
_JOINED = re.compile(r"(?<![\u0600-\u06ff\u0900-\u0dff\U0001f000-\U0001ffff\u2600-\u27bf\ufe0f])[\u200c\u200d]")
# UTF-8 read as Windows-1252 or Latin-1.
_MOJIBAKE = re.compile(r"â€[™œ“”˜¦\u009d\u0080-\u009f]?|Ã[\u0080-\u00bf©¨¼¶¤±³¡ªº]|Â[\u00a0°·»«]|ï»¿|ðŸ")


class CharacterGate:
    """Control, format and bidirectional characters, private use, unassigned, the replacement character, mojibake."""

    name = "characters"

    def check(self, sample: Sample) -> str:
        """The first such character."""
        text = sample.reply
        if _PLAIN.match(text):
            return ""
        for character in text:
            if character == "\ufffd":
                return "the replacement character: bytes were lost"
            if character not in _ALLOWED and character != "\r" and unicodedata.category(character) in _ODD_CATEGORIES:
                return f"U+{ord(character):04X} ({unicodedata.category(character)})"
        if _JOINED.search(text):
            return "a joiner that joins nothing"
        found = _MOJIBAKE.search(text)
        return f"read in the wrong encoding: {found.group()!r}" if found else ""
