"""What somebody may have meant by a name that is not known: three at most, never the whole list of eighty."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MOST = 3
_LIKENESS = 0.66  # of difflib: `recepie` is near `recipe`, `talk` is not near `detail`
_FEW = 12  # as many as a reader takes in at a glance


def near(name: str, known: Iterable[str]) -> list[str]:
    """Known names like `name`, best first: those that hold it as a whole word, then those of like spelling."""
    names, asked = list(known), name.strip().lower().replace("-", "_")
    parts = [part for part in names if asked and f"_{asked}_" in f"_{part.lower().replace('-', '_')}_"]
    spelt = difflib.get_close_matches(asked, [one.lower().replace("-", "_") for one in names], _MOST, _LIKENESS)
    close = [one for spelling in spelt for one in names if one.lower().replace("-", "_") == spelling]
    # `annotations` for `expand_annotations_uri`, `lr` for nothing: only names that say all that was said.
    return list(dict.fromkeys([*close, *sorted(parts, key=len)]))[:_MOST]


def meant(name: str, known: Iterable[str], where: str = "") -> str:
    """Half a sentence for an error: `did you mean recipe?`, or which names there are, or where they stand.

    Args:
        name: what was found.
        known: what is known.
        where: what lists them all (`python pipeline.py parameters`), for when they are too many to be shown.
    """
    names = sorted(known)
    found = near(name, names)
    if found:
        return f"did you mean {' or '.join(found)}?"
    if len(names) <= _FEW or not where:
        return f"known: {', '.join(names)}"
    return f"{where} shows all {len(names)}"
