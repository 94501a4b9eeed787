"""What can go wrong when a teacher is asked, in the four classes that decide what to do next."""

from __future__ import annotations

from typing import Literal

from llava.redaction import redact

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
