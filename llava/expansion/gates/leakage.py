"""Leakage: the row talks of what the teacher was given, or repeats the prompt, as no one who looks would."""

from __future__ import annotations

import re

from llava.expansion.gates.base import Sample

# What a teacher is given; an assistant who looks at an image has none of it.
_MATERIAL = (
    r"(?:captions?|descriptions?|sentences?|statements?|annotations?|detections?|annotated objects|object list"
    r"|list of (?:objects|items|things)|metadata|labels?|contexts?|input|prompt|data|information|details|text|passage"
    r"|paragraph|lines?|bullet points?|listed (?:objects|items))"
)
_SAYS = (
    r"(?:say|mention|describe|state|indicate|suggest|note|provide|give|list|specif(?:y|ie)|include|contain|tell|show|refer"
    r"|make|agree|point|confirm|report|talk|speak|allow|do(?:es)?|did)(?:e?s|ed)?"
)
_ORDINAL = (
    r"(?:first|second|third|fourth|fifth|last|other|next|final|previous|one|two|all|both|none|each|some|several|any"
    r"|most)"
)
_LEAK = re.compile(
    r"\b(?:the|these|those|this|your|given|provided|five|several|above|first|second|third|last|each|all|other|four|of) "
    r"(?:\w+ )?captions?\b(?! (?:on|under|below|of the (?:sign|poster|photo)))"
    rf"|\bcaptions? (?:{_SAYS})\b|\bin (?:the )?captions\b"
    rf"|\b(?:according to|based (?:up)?on|going by|judging (?:by|from)|given|per|from) (?:the|these|those"
    rf"|your|this|all|what) "
    rf"(?:\w+ ){{0,2}}?{_MATERIAL}\b(?! (?:on|of|at|in|under|above|behind|beside|next) (?:the|a|his|her|its|their)\b)"
    # `The sign's text` and `the text on the sign` are of the image; `the text does not mention` is of the prompt.
    rf"|(?<!['’]s )\b(?:the|these|those|your) (?:descriptions?|sentences?|statements?|annotations?|input|prompt|context"
    rf"|metadata|passage) (?:\w+ ){{0,2}}?(?:{_SAYS})\b"
    r"|\bthe (?:text|information|data|details|paragraph) (?:\w+ )?(?:does(?:n['’]t| not)|do(?:n['’]t"
    r"| not)|mention|describe"
    r"|state|indicate|specif|provid|list|given|suggest)\w*"
    rf"|\b{_MATERIAL} (?:that (?:was|were|is|are|i was) |i was |(?:was|were) )?(?:given|provided|supplied|listed|shared"
    r"|mentioned above|you (?:gave|provided|shared|sent|wrote))\b"
    r"|\b(?:provided|given|supplied|listed|available|above|following) (?:image )?"
    r"(?:captions?|descriptions?|sentences?|statements?|information|context|annotations?|text|details|data|objects|labels"
    r"|items|list)\b"
    rf"|\b{_ORDINAL} (?:of )?(?:the |these |those )?(?:\w+ )?(?:sentences?|descriptions?|statements?|captions?)\b"
    rf"|\b(?:first|second|third|fourth|fifth|last|next) line (?:{_SAYS})\b"
    r"|\b(?:as|like) (?:you(?:['’]ve| have)? |the user |was |is |i was )?(?:mentioned|described|stated|noted|listed"
    r"|specified|provided|said|told|given|written)\b(?! (?:by|on|in) (?:the|a|his|her) (?:sign|label|menu"
    r"|poster|book|legend))"
    r"|\b(?:you|the user|the prompt|the author) (?:has |have |['’]ve )?(?:described|mentioned|provided|gave|given|said"
    r"|told|wrote|written|listed|specified|stated|supplied|noted)\b|\bfrom what you\b|\bwhat (?:you|i was) (?:gave|told"
    r"|given|said|described|wrote)\b|\bi (?:was|am|have been|['’]ve been) (?:told|given|informed|provided)\b"
    r"|\bdescribed to me\b"
    r"|\b(?:is|are|was|were|it['’]s)(?: not|n['’]t) (?:explicitly |specifically |directly "
    r"|clearly )?(?:mentioned|specified"
    r"|stated|described|indicated|provided|listed|noted|given|included)\b"
    r"|\b(?:is|are|was|were|as|it['’]s|been|being) (?:\w+ )?(?:annotated|labell?ed|listed|tagged"
    r"|captioned) (?:as|in|with|by)\b"
    r"|\b(?:detected|annotated|labell?ed|tagged|listed) (?:objects?|persons?|people|items?|categor(?:y"
    r"|ies)|instances?|box(?:es)?)\b"
    r"|\bobject (?:annotations?|detections?|detectors?|labels?|list|categor(?:y|ies))\b|\bannotat(?:ed|ions?|ors?)\b"
    r"|\bthe list of (?:objects|items|things|people|annotations)\b"
    r"|\bfew-?shot\b|\bsystem (?:prompt|message)\b|\bground[- ]truth\b|\bmetadata\b|\bdata ?set\b",
    re.IGNORECASE,
)
# What any leak has at least one of; looking for these is many times quicker than the expression above.
_STEMS = (
    "caption", "descri", "sentence", "statement", "annot", "detect", "data", "label", "context", "input", "prompt",
    "inform", "detail", "text", "passage", "paragraph", "line", "bullet", "list", "mention", "stated",
    "noted", "specif",
    "provid", "given", "gave", "told", "said", "wrote", "written", "suppl", "indicat", "includ", "tagged",
    "shot", "truth",
    "from what you", "what you", "object ",
)  # fmt: skip
_PROMPT_WORDS = 12


class LeakageGate:
    """Words about the teacher's material, and runs of words copied from the prompt."""

    name = "leakage"

    def __init__(self) -> None:
        self._prompts: dict[str, set[tuple[str, ...]]] = {}

    def check(self, sample: Sample) -> str:
        """The words that give the prompt away."""
        text = sample.text
        lower = text.lower()
        found = _LEAK.search(text) if any(stem in lower for stem in _STEMS) else None
        if found:
            return f"{found.group()!r}"
        words = _words(text)
        if len(words) >= _PROMPT_WORDS:
            prompt = self._of(sample)
            for start in range(len(words) - _PROMPT_WORDS + 1):
                run = tuple(words[start : start + _PROMPT_WORDS])
                if run in prompt:
                    return f"copied from the prompt: {' '.join(run)!r}"
        return ""

    def _of(self, sample: Sample) -> set[tuple[str, ...]]:
        if sample.kind.name not in self._prompts:
            runs: set[tuple[str, ...]] = set()
            for message in sample.kind.prefix():
                words = _words(message["content"])
                runs.update(tuple(words[k : k + _PROMPT_WORDS]) for k in range(len(words) - _PROMPT_WORDS + 1))
            self._prompts[sample.kind.name] = runs
        return self._prompts[sample.kind.name]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())
