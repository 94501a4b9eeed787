"""Errors that a person is meant to read.

A `UserError` is caused by something its reader can change: a setting, a file, a row. Its message
names the place, the value found and what would be right. The command line and the executor print
it without a traceback; every other exception is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import reprlib
from typing import Any

from llava.redaction import redact, visible

_shown = reprlib.Repr()  # a value from outside may be nested or long without end
_shown.maxstring = _shown.maxother = 160
_shown.maxdict = _shown.maxlist = 8


class UserError(Exception):
    """Something the user can put right. The message says where, what was found and what would be right.

    It is safe to show and to store: keys and passwords are cut out of it, control characters are written out.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(visible(redact(message)))

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses take other arguments than the message they make of them; ranks send each other finished errors.
        return _as_it_was, (type(self), self.args, self.__dict__)


def _as_it_was(kind: type[UserError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> UserError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


class SettingsError(UserError):
    """A setting or recipe field is missing, unknown or out of range."""


class DataError(UserError):
    """A data file as a whole cannot be used: absent, empty, not of its format, too many bad rows."""


class RowError(DataError):
    """One row of a data file cannot be used. Readers count and report these; they never replace the row.

    Args:
        file: URI of the file the row stands in.
        row: zero-based index of the row in that file.
        field: the field at fault, dotted (`conversations[2].value`).
        value: what was found there; shortened for the message.
        expected: what would be right, as half a sentence.
        problem: short machine-readable class, counted in reports (`image-missing`, `image-count`, ...).
    """

    def __init__(self, file: str, row: int, field: str, value: object, expected: str, *, problem: str) -> None:
        shown = _shown.repr(value)
        if len(shown) > 120:
            shown = shown[:117] + "..."
        super().__init__(f"{file}: row {row}: {field}: found {shown}; expected {expected}")
        self.file = file
        self.row = row
        self.field = field
        self.value = value
        self.expected = expected
        self.problem = problem


class StorageError(UserError):
    """Bytes could not be read or written: absent, forbidden, or the store did not answer before the deadline."""


class TransientError(UserError):
    """Nobody's mistake, and perhaps gone on another try: a store or service that was away, a lost process or node.

    On a cluster the stage is started again after one, from its last checkpoint (`llava.stages.restarts`).
    """


class StoreAwayError(StorageError, TransientError):
    """The store did not answer, or kept answering that it cannot, until the deadline."""


class StoppedError(UserError):
    """Somebody asked for the end (SIGTERM, Ctrl-C, a job deleted by hand). Checkpoints are complete."""
