"""Data URIs, in which images travel inside a request."""

from __future__ import annotations

import re

_DATA = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,")


def split_data_uri(url: str) -> tuple[str, str] | None:
    """(media type, base64 text) of a data URI; None for any other URL."""
    found = _DATA.match(url)
    return (found.group(1), url[found.end() :]) if found else None
