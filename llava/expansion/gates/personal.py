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
    "registration plate": re.compile(
        r"(?i:\b(?:licen[cs]e|number|registration|vehicle)[- ]?plates?\b[^.\n]{0,25}?)"
        r"\b(?=[A-Z0-9 -]*\d)(?=[A-Z0-9 -]*[A-Z])[A-Z0-9]{1,4}(?:[ -]?[A-Z0-9]{1,4}){1,2}\b"
    ),
    "password or user name": re.compile(
        r"(?i:\b(?:password|passcode|pass phrase|pin(?: code)?|user ?names?|log-?in)\b)(?i: (?:is|are|was"
        r"|reads?|of|says))?"
        r"[:\s]+[\"'“‘]?(?=\S*\d)[\w!@#$%^&*.-]{4,}"
    ),
    "number of a document": re.compile(
        r"(?i:\b(?:passport|licen[cs]e|identity|id|social security|insurance|account|membership|patient|badge|visa)\b"
        r"[^.\n]{0,25}?)\b(?=[A-Z0-9]*\d[A-Z0-9]*\d)(?=[A-Z0-9]*[A-Z])[A-Z0-9]{6,}\b"
    ),
    "birth date": re.compile(
        r"\b(?:born (?:on )?|date of birth:? ?|dob:? ?)(?:\w+ \d{1,2},? \d{4}|\d{1,2}(?:st|nd|rd"
        r"|th)?(?: of)? \w+,? \d{4}"
        r"|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{4}-\d\d-\d\d)",
        re.IGNORECASE,
    ),
}  # fmt: skip
_DATA = re.compile(r"\d|@|https?:|www\.", re.IGNORECASE)  # every pattern needs one of these
_TWO_NAMES = re.compile(r"[A-Z][a-z]+(?:[-'’][A-Z][a-z]+)? (?:[A-Z]\. )?[A-Z][a-z]")
_NAME = r"[A-Z][a-z]+(?:[-'’][A-Z][a-z]+)?"
_ROLE = (
    "man|woman|boy|girl|child|kid|baby|person|player|batter|pitcher|catcher|umpire|surfer|skier|skater|skateboarder|rider"
    "|driver|cook|chef|owner|actor|actress|singer|politician|president|photographer|bride|groom|teacher|doctor|officer"
    "|name|mother|father|son|daughter|athlete|runner|swimmer|cyclist|dancer|musician|guitarist"
)
# A first and a last name, said of a person. Names of places and things have a telling last word, or stand elsewhere.
_NAMED = re.compile(
    rf"(?:\b(?:[Tt]hat|[Tt]his|[Hh]e|[Ss]he|(?:[Tt]he|[Hh]is|[Hh]er|[Tt]heir) (?:\w+ )?(?:{_ROLE}))(?: is|['’]s| was)"
    rf"|\b(?:named|called|known as|identified as)|\b(?:{_ROLE}),) (?:\w+ )?(?P<name>{_NAME}(?: [A-Z]\.)? {_NAME})\b"
)
_WHO = re.compile(r"^(?:who|whose|what(?:['’]s| is) (?:the|his|her|their) name)\b", re.IGNORECASE)
_ANY_NAME = re.compile(rf"(?<![.!?] )(?<!^)\b(?P<name>{_NAME} {_NAME})\b", re.MULTILINE)
_PLACE = re.compile(
    r"\b(?:Bridge|Tower|Street|Avenue|Park|Building|Ben|Cup|League|Lines?|University|Station|Market|Company|City|Bay|Beach"
    r"|Lake|River|Mountains?|Island|Church|Cathedral|Museum|Square|Hall|House|Hotel|School|Airport|Zoo|Garden|Palace|Castle"
    r"|Kong|York|Francisco|Angeles|Gate|States|Kingdom|Zealand|Africa|America|Day|Christmas|Birthday|Shepherd|Retriever"
    r"|Bernard|Terrier|Santa|Claus|King|Prince|Queen|Teddy|Bear|Mickey|Mouse|Coca|Cola|Wii|Bull|Sox|Yankees|Apple)\b"
)
_CARD = re.compile(r"(?<!\d)(?:\d[ -]?){13,19}(?!\d)")


class PersonalDataGate:
    """Addresses, numbers and accounts of people."""

    name = "personal_data"

    def check(self, sample: Sample) -> str:
        """What sort was found; the data itself is not repeated."""
        text = sample.text
        if not _DATA.search(text):
            return "name of a person" if _names_somebody(sample) else ""
        for what, pattern in _PATTERNS.items():
            if pattern.search(text):
                return what
        if any(_luhn(match.group()) for match in _CARD.finditer(text)):
            return "payment card number"
        return "name of a person" if _names_somebody(sample) else ""


def _names_somebody(sample: Sample) -> bool:
    for question, answer in sample.pairs:
        if not _TWO_NAMES.search(answer):
            continue
        found = [*_NAMED.finditer(answer), *(_ANY_NAME.finditer(answer) if _WHO.match(question) else ())]
        if any(not _PLACE.search(match["name"]) for match in found):
            return True
    return False


def _luhn(text: str) -> bool:
    digits = [int(digit) for digit in text if digit.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) if k % 2 else digit for k, digit in enumerate(reversed(digits))]
    return len(digits) >= 13 and sum(doubled) % 10 == 0
