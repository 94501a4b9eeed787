"""A response that comes twice on one connection shifts every later one by a place: each image gets another's text.

Servers give each completion an id of its own. The same id with the same content again is a doubled response; the same
id with other content means that this server's ids say nothing, and so does the same again over a new connection.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

_REMEMBERED = 10_000


class Twice:
    """Remembers responses by their ids."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, bytes] = OrderedDict()
        self._accused: set[str] = set()
        self.trusted = True

    def seen(self, name: str, content: str) -> bool:
        """True when this very response came before."""
        if not self.trusted or not name:
            return False
        digest = hashlib.sha256(content.encode()).digest()
        before = self._seen.get(name)
        if before is None:
            self._seen[name] = digest
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
            return False
        if before != digest or name in self._accused:
            self.trusted = False
            return False
        self._accused.add(name)
        return True
