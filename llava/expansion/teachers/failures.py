"""What can go wrong when a teacher is asked, in the four classes that decide what to do next."""

from __future__ import annotations

import os
import re
from typing import Literal

FailureClass = Literal["retry", "drop", "stop"]
"""`retry`: the same request may succeed later; `drop`: this request never will; `stop`: no request will.

(The fourth class, `repair`, is a reply that came but cannot be used: see `dispatch`.)
"""


class TeacherFailure(Exception):
    """No reply. The message is safe to store: secrets are cut out of it.

    Args:
        action: what to do about it.
        reason: short, for the ledger and for people.
        retry_after: seconds the server asked us to wait, or None.
        throttled: the server has too much to do, so fewer requests should be in flight.
    """

    def __init__(
        self, action: FailureClass, reason: str, *, retry_after: float | None = None, throttled: bool = False
    ) -> None:
        super().__init__(redact(reason))
        self.action = action
        self.retry_after = retry_after
        self.throttled = throttled


_SECRETS = re.compile(r"\b(?:sk|pk|rk)-[A-Za-z0-9_\-*]{6,}|(?i:bearer)\s+[^\s\"']{6,}|(?<=://)[^/\s@]+:[^/\s@]+@")


def redact(text: str) -> str:
    """`text` without API keys, bearer tokens and passwords in URLs; servers echo them in error messages."""
    for name in ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        value = os.environ.get(name, "")
        if len(value) >= 4:
            text = text.replace(value, "[redacted]")
    return _SECRETS.sub("[redacted]", text)
