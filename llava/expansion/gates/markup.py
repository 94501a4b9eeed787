"""Markup: rows are plain prose; tags, scripts and formatting of any kind are not."""

from __future__ import annotations

import re

from llava.expansion.gates.base import Sample

_SIGNS = re.compile(r"[<>&#*|`$\\\[{~_]|:\s*//")
_MARKUP = re.compile(
    r"</?[A-Za-z][\w:-]*(?:\s[^<>]*)?/?>|<!--|<\|[^|<>]{1,40}\|>"  # HTML, XML, tokens of chat formats
    r"|&(?:[a-z]{2,8}|#\d{1,6}|#x[0-9a-f]{1,6});"
    r"|^\s{0,3}#{1,6}\s+\S|^\s*\|.*\|\s*$|^\s*(?:```|~~~)|^\s*>\s"  # Markdown: headings, tables, fences, quotations
    r"|\*\*[^*\n]+\*\*|__[^_\n]+__|~~[^~\n]+~~|`[^`\n]+`|(?<![\w*])\*[A-Za-z][^*\n]*\*(?![\w*])"
    r"|!?\[[^\]\n]*\]\([^)\s]+\)"
    r"|\\(?:text|frac|begin|end|math|left|right|times|cdot|boxed|item)\w*\b|\$[^$\n]*[=\\^_{][^$\n]*\$|\\[(\[]"  # LaTeX
    r"|\[/?(?:b|i|u|s|url|img|code|quote|size|color|list)(?:=[^\]\n]*)?\]"  # BBCode
    r"|\A\s*[\[{]\s*[\"{\[]|\"\s*:\s*[\"\[{]|[\"\]}]\s*[\]}]\s*\Z"  # JSON
    r"|\[/?INST\]|<</?SYS>>|javascript:|\bfunction\s*\(|\bon(?:click|load|error)\s*=",
    re.IGNORECASE | re.MULTILINE,
)


class MarkupGate:
    """HTML, Markdown, LaTeX, BBCode, JSON, scripts and tokens of chat formats."""

    name = "markup"

    def check(self, sample: Sample) -> str:
        """The first piece of markup."""
        for part in (part for pair in sample.pairs for part in pair):
            if not _SIGNS.search(part) and "javascript" not in part:
                continue
            found = _MARKUP.search(part)
            if found:
                return f"{found.group().strip()[:60]!r}"
        return ""
