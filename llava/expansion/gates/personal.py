"""Personal data: what an image's row must not carry, wherever the teacher had it from."""

from __future__ import annotations

import re

from llava.expansion.gates.base import Sample

_PATTERNS = {
    "e-mail address": re.compile(r"\b[\w.+-]+@[\w-]+\.[A-Za-z][\w.-]*\b"),
    "telephone number": re.compile(
        r"(?<![\w.])(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,4}\)|\d{2,4})[ .-]\d{3,4}[ .-]\d{3,4}(?![\w])"
        r"|(?<![\w.])\+\d{9,14}(?!\w)|(?<![\w.])\+\d{1,3}(?:[ .-]\(?\d{1,5}\)?){1,3}[ .-]\d{3,8}(?!\w)"
        r"|(?i:\b(?:phone|tel|call|fax)\w*\b\D{0,15})\d{3}[ .-]?\d{4}\b"
    ),
    "social security number": re.compile(r"\b\d{3}-\d{2}-\d{4}\b"),
    "IP address": re.compile(r"\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b"),
    "web address": re.compile(r"\b(?:https?://|www\.)\S+", re.IGNORECASE),
    "account name": re.compile(r"(?<![\w@])@[A-Za-z_]\w{2,}"),
    "IBAN": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}\b"),
    "street address": re.compile(
        r"\b\d{1,5} (?:[A-Z][a-z]+ ){1,3}(?:Street|Avenue|Road|Lane|Drive|Boulevard|Court|St\.|Ave\.|Rd\.)\b"
    ),
    "passport or licence number": re.compile(
        r"(?i:\b(?:passport|licen[cs]e|id|identity)(?: \w+)? (?:number|no\.?)\b\D{0,12})[A-Z]{0,3}\d{5,}"
    ),
    "birth date": re.compile(
        r"\b(?:born (?:on )?|date of birth:? ?|dob:? ?)(?:\w+ \d{1,2},? \d{4}|\d{1,2}[./-]\d{1,2}[./-]\d{2,4})",
        re.IGNORECASE,
    ),
}  # fmt: skip
_CARD = re.compile(r"(?<!\d)(?:\d[ -]?){13,19}(?!\d)")


class PersonalDataGate:
    """Addresses, numbers and accounts of people."""

    name = "personal_data"

    def check(self, sample: Sample) -> str:
        """What sort was found; the data itself is not repeated."""
        text = sample.text
        for what, pattern in _PATTERNS.items():
            if pattern.search(text):
                return what
        if any(_luhn(match.group()) for match in _CARD.finditer(text)):
            return "payment card number"
        return ""


def _luhn(text: str) -> bool:
    digits = [int(digit) for digit in text if digit.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) if k % 2 else digit for k, digit in enumerate(reversed(digits))]
    return len(digits) >= 13 and sum(doubled) % 10 == 0
