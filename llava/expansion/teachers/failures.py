"""What can go wrong when a teacher is asked, in classes that decide what to do next."""

from __future__ import annotations

from typing import Literal

from llava.expansion.teachers.base import Usage
from llava.redaction import redact

FailureClass = Literal["retry", "drop", "reject", "stop"]
"""`retry`: the same request may succeed later; `drop`: this request never will, because of its content; `reject`: this
request was refused, and what happens to others tells whether it or the settings are at fault; `stop`: no request will
succeed.

(A reply that came but cannot be used is no failure: see `dispatch`.)
"""


class TeacherFailure(Exception):
    """No reply. The message is safe to store: secrets are cut out of it.

    Args:
        action: what to do about it.
        reason: short, for the ledger and for people.
        status: HTTP status; 0 without one.
        retry_after: seconds the server asked us to wait, or None.
        throttled: the server has too much to do, so fewer requests should be in flight.
        billed: the provider may charge for it: the request went out, and nothing says that it was not worked on.
        usage: what it said that it used; None where it did not say.
        suspect: the reply may be another request's, so the connection it came over is not to be used again.
    """

    def __init__(
        self,
        action: FailureClass,
        reason: str,
        *,
        status: int = 0,
        retry_after: float | None = None,
        throttled: bool = False,
        billed: bool = False,
        usage: Usage | None = None,
        suspect: bool = False,
    ) -> None:
        super().__init__(redact(reason))
        self.action = action
        self.status = status
        self.retry_after = retry_after
        self.throttled = throttled
        self.billed = billed
        self.usage = usage
        self.suspect = suspect
