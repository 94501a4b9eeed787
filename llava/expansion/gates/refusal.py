"""Refusal: the teacher declined, apologised or spoke about itself instead of answering."""

from __future__ import annotations

import re

from llava.expansion.gates.base import Sample

_REFUSAL = re.compile(
    r"\b(?:i(?:['’]m| am) (?:sorry|unable|not able|afraid)|(?:i )?(?:apologi[sz]e|my apologies)"
    r"|i (?:can(?:no|['’])t|cannot|can not|won['’]t|will not|am not allowed to|do not|don['’]t) (?:\w+ ){0,2}?"
    r"(?:assist|help|comply|provide|answer|fulfil?l|see (?:the|any|an|this) (?:image|picture|photo)"
    r"|view|access|generate|create|describe|have (?:access|the ability|enough|sufficient)|identify)"
    r"|i (?:\w+ ){0,3}(?:decline|refuse|refrain)\b"
    r"|as an? (?:ai|artificial intelligence|(?:large )?language model|text-based|text-only)"
    r"|as a language model|against (?:my|our|the) (?:policy|policies|guidelines)|content policy|openai|chatgpt"
    r"|unable to (?:view|see|process|provide|assist|help|determine from|access)"
    r"|(?:no|without an?) image (?:was|has been|is) (?:provided|attached|uploaded|shared)"
    r"|please (?:provide|upload|share|attach) (?:the|an?|your|more) (?:image|picture|photo|context|information|details)"
    r"|(?:can|could) you (?:please )?(?:provide|share|upload)\b)",
    re.IGNORECASE,
)


class RefusalGate:
    """Refusals and talk about being a model, anywhere in the reply."""

    name = "refusal"

    def check(self, sample: Sample) -> str:
        """The phrase found."""
        found = self.phrase(sample.answers or sample.reply)
        return f"{found!r}" if found else ""

    @staticmethod
    def phrase(text: str) -> str:
        """The first phrase of refusal in a text; empty when there is none."""
        found = _REFUSAL.search(text)
        return found.group() if found else ""
