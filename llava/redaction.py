"""What must not be shown: passwords and keys that stand in addresses and messages, and control characters.

Servers echo keys in their errors, people write passwords into endpoints, and text from outside can carry escapes that
repaint a terminal. Errors, logs, manifests and reports pass through here.
"""

from __future__ import annotations

import os
import re
from typing import Any

_IN_ENVIRONMENT = (
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "GEMINI_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
_SECRETS = re.compile(
    r"\b(?:sk|pk|rk)-[A-Za-z0-9_\-*]{6,}"
    r"|(?i:bearer)\s+[^\s\"']{6,}"
    r"|(?<=://)[^/\s@'\"]+@"  # user:password@, or a token alone
    r"|(?<=[?&])(?i:[\w-]*(?:key|token|secret|password|passwd|signature|credential)[\w-]*|sig|auth)=[^&\s'\"<>#]+"
)
# Everything a terminal acts upon, and the marks that turn the direction of text; tab and newline stay.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def redact(text: str) -> str:
    """`text` without API keys, bearer tokens, and passwords or keys in URLs."""
    for name in _IN_ENVIRONMENT:
        value = os.environ.get(name, "")
        if len(value) >= 4:
            text = text.replace(value, "[redacted]")
    return _SECRETS.sub(lambda found: "[redacted]@" if found[0].endswith("@") else "[redacted]", text)


def redact_all(value: Any) -> Any:
    """`value` with every text in it redacted, at any depth of dicts and lists."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redact_all(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_all(item) for item in value]
    return value


def visible(text: str) -> str:
    """`text` with control characters written out (`\\x1b`, `\\u202e`), so that a terminal or a page only shows them."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
