"""One check for all benchmarks: an id is one question's, because answers are kept and compared by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from llava.errors import DataError
from llava.evaluation.benchmark import Question

_SHOWN = 5


def check_ids(questions: Sequence[Question], uri: str) -> None:
    """Refuse questions that share an id.

    Raises:
        DataError: naming the ids, how often each occurs, and what to do.
    """
    twice = [(key, count) for key, count in Counter(question.id for question in questions).items() if count > 1]
    if twice:
        shown = ", ".join(f"{key!r} ({count} times)" for key, count in twice[:_SHOWN])
        more = f" and {len(twice) - _SHOWN} more" if len(twice) > _SHOWN else ""
        raise DataError(
            f"{uri}: {len(twice)} question ids occur more than once: {shown}{more}; expected an id a question. Answers "
            "are kept by id, so these would share one. Give each row its own id (for POPE, files named after their "
            "sampling, or a `category`, tell equal ids apart)"
        )
