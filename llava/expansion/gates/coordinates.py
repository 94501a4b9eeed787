"""Coordinates: where things stand in numbers, as nobody who looks would say it."""

from __future__ import annotations

import re

from llava.expansion.gates.base import Sample

_N = r"-?(?:\d+(?:\.\d+)?|\.\d+)"
_UNIT = r"(?:0?\.\d+|[01]\.\d+)"  # a fraction of the image's side
_SIDE = (
    r"(?:left|right|top|bottom|upper|lower|image|picture|photo(?:graph)?|frame|scene|width|height|edge|view|centre"
    r"|center)"
)
_COORDINATES = re.compile(
    # Pairs and fours in brackets: [0.12, 0.3, 0.4, 0.5], (320, 240), (x: 12, y: 40).
    rf"[\[(<{{]\s*{_N}\s*(?:[,;]|\bto\b)\s*{_N}(?:\s*[,;]\s*{_N}){{0,2}}\s*[\])>}}]"
    # Names of axes and corners with numbers: x = 0.3, y1: 40, left: 12 %, width 110.
    rf"|\b[xy][12]?\s*(?:[:=≈~]|(?:is|of|at|from|between|around|about)\s)\s*{_N}|\b[xy](?:[-_ ]?(?:min|max|[12]))\b"
    rf"|\b(?:left|right|top|bottom|width|height|x|y|w|h|cx|cy)\s*[:=]\s*{_N}|\b[xy] ?[- ]?(?:axis|axes"
    rf"|coordinates?|values?)\b"
    # Percent of the image, or from one of its sides.
    rf"|{_N}\s?(?:%|percent|per cent)(?: of the way)?(?: \w+){{0,2}}? (?:from|of|across|along|down|up|to|in from|into)"
    rf"(?: (?:the|its|image's|picture's)){{0,2}} (?:\w+ ){{0,2}}?{_SIDE}\b"
    rf"|{_N}\s?(?:%|percent|per cent) (?:of the way|across|horizontally|vertically|down|wide|tall|along)\b"
    # Pixels and sizes.
    rf"|{_N}[ -]?(?:px|pixels?)\b|\bpixels? (?:from |at |between )?{_N}|\b\d{{2,4}}\s?(?:x|×"
    rf"|by)\s?\d{{2,4}}(?!\s?(?:inch|mm|cm|feet))"
    # Tags and keys of detectors.
    r"|<\|?/?(?:box|bbox|loc|ref|quad|point|seg|obj|region|p)(?:[_:]?\w+)?\|?>|\bbbox(?:es)?\b"
    r"|\bbounding[- ]?box(?:es)?\b|<\d{1,4}>"
    # Numbers with a word that says what they are.
    rf"|{_N}\s*(?:-|–|—|to|and|through)\s*{_N}\s*(?:%|percent)?\s*(?:horizontally|vertically|on the [xy]"
    rf"|across the|in (?:the )?"
    rf"(?:width|height|horizontal|vertical))"
    rf"|\b(?:horizontally|vertically|from the (?:left|top|right|bottom))\s*(?:from|at|between|:|,)?\s*{_N}"
    rf"|\b(?:cent(?:re|er)(?:ed|d)?|midpoint|middle|corner|position(?:ed)?|located|point|region|spot|at|around|near)\s+"
    rf"(?:point |is |lies |of |at |about |around ){{0,3}}\(?\d{{2,4}}(?:\.\d+)?\s*,\s*\d{{2,4}}\b"
    rf"|\b(?:row|column|col)\s+\d+\b(?:,| and) (?:row|column|col)"
    # Fractions of a side: 0.211 to 0.467, .12 to .44, 0.3 of the way; three decimals are nobody's estimate.
    rf"|(?<![\d.]){_UNIT}\s*(?:-|–|to|and|,)\s*(?:about |around )?{_UNIT}(?!\d)|\b0\.\d{{3,}}\b"
    rf"|(?<![\d.]){_UNIT} of the (?:way|{_SIDE})"
    r"|\bnormali[sz]ed (?:position|coordinates?|units?|values?|range)\b"
    r"|\b(?:the|its|their|at|with|by|of|image|exact|pixel|corner|cent(?:re|er)|these|those"
    r"|given) (?:\w+ )?coordinates\b"
    r"|\bcoordinates? (?:of|are|is|\[|\(|:|given|provided|show|indicate|suggest|\d)",
    re.IGNORECASE,
)
_DIGIT_OR_WORD = re.compile(r"\d|coordinate|axis|normali|box|pixel|[xy][-_ ]?m|<", re.IGNORECASE)


class CoordinateGate:
    """Numbers that say where something is: pairs, percents, pixels, axes, detector tags."""

    name = "coordinates"

    def check(self, sample: Sample) -> str:
        """The first coordinate."""
        text = sample.text
        if not _DIGIT_OR_WORD.search(text):
            return ""
        found = _COORDINATES.search(text)
        return f"{found.group().strip()!r}" if found else ""
