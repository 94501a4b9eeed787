"""When a schedule fires: cron as everybody writes it, checked here, in the form that Kubeflow reads.

Kubeflow's scheduler (robfig/cron v1, backend/src/crd/controller/scheduledworkflow) reads a field for seconds first, so
the usual five fields would mean something else there: `0 3 * * 1` is read as "at second 0 of minute 3, on the first of
every month". Whatever cannot be read it drops without a word ("Found invalid schedule" in the controller's log).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice

from cronsim import CronSim, CronSimError

from llava.errors import SettingsError

FIELDS = ("minute", "hour", "day of month", "month", "day of week")
# cronsim knows L, W and #; Kubeflow's reader does not, and counts Sunday as 0 only.
_PLAIN = re.compile(r"^[0-9*,/\-]+$|^[A-Za-z,\-]+$")


def kubeflow_cron(text: str) -> str:
    """The six-field form of a five-field cron expression.

    Raises:
        SettingsError: not five fields, not what Kubeflow's reader knows, or a day that never comes (30 February).
    """
    fields = text.split()
    if len(fields) != len(FIELDS):
        raise SettingsError(
            f"--cron: found {text!r}, {len(fields)} fields; expected five: {', '.join(FIELDS)}, as in '0 3 * * 1'"
        )
    for name, field in zip(FIELDS, fields, strict=True):
        if not _PLAIN.match(field):
            raise SettingsError(f"--cron: {name} {field!r}; expected numbers or names with * , - / (no L, W, # or ?)")
    if re.search(r"(^|[,-])0*7($|[,/-])", fields[-1]):
        raise SettingsError(f"--cron: day of week {fields[-1]!r}; Kubeflow counts Sunday as 0, not 7")
    if any(re.fullmatch("[lL]", part) for field in fields for part in field.split(",")):
        raise SettingsError(f"--cron: found {text!r}; Kubeflow does not know L")
    try:
        next(CronSim(text, datetime(2024, 1, 1)))  # a leap year: 29 February comes
    except (CronSimError, StopIteration) as error:
        raise SettingsError(f"--cron: {text!r} never comes: {error or 'no such day'}") from error
    return f"0 {text}"


def times(text: str, after: datetime) -> Iterator[datetime]:
    """When a five-field expression fires, from `after` on."""
    return iter(CronSim(text, after))


def moment(text: str, flag: str) -> datetime:
    """An ISO 8601 time; one without a zone is UTC.

    Raises:
        SettingsError: it is not one.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(f"{flag}: found {text!r}; expected a time such as 2026-01-31T03:00:00Z") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def missed(text: str, start: datetime, now: datetime, most: int) -> int:
    """How often the expression fired between `start` and `now`, counted up to `most`."""
    due = 0
    for time in islice(times(text, start), most):
        if time > now:
            break
        due += 1
    return due
