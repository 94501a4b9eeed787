"""Does a reply belong to its request? The prompt tokens that the server counted must fit the prompt that was sent."""

from __future__ import annotations

from llava.expansion.recipe.requests import Request
from llava.expansion.teachers.base import Usage

_ENOUGH = 20  # replies of a kind before any of it is doubted
# Images of one size take the same tokens by any provider's rule; those of another size may not be compared with them.
_Group = tuple[str, int, int]
_LEAST = 16.0  # tokens off that no tokenizer makes suspicious
_TIMES = 8.0  # the mean distance from the line


class _Line:
    """Least squares of prompt tokens over context bytes, updated reply by reply (Welford 1962)."""

    def __init__(self) -> None:
        self.n = 0
        self._mean_x = self._mean_y = self._xx = self._xy = self._off = 0.0

    def distance(self, x: float, y: float) -> float:
        slope = self._xy / self._xx if self._xx > 0 else 0.0
        return abs(y - (self._mean_y + slope * (x - self._mean_x)))

    @property
    def usual(self) -> float:
        return self._off / self.n if self.n else 0.0

    def add(self, x: float, y: float) -> None:
        self._off += self.distance(x, y) if self.n > 1 else 0.0
        self.n += 1
        dx = x - self._mean_x
        self._mean_x += dx / self.n
        self._mean_y += (y - self._mean_y) / self.n
        self._xx += dx * (x - self._mean_x)
        self._xy += dx * (y - self._mean_y)


class Plausible:
    """Compares prompt tokens with those of the other replies of a kind, and of an image of that size.

    A first doubt is answered by asking again: the same count twice is the prompt's own.
    """

    def __init__(self) -> None:
        self._lines: dict[_Group, _Line] = {}
        self._doubted: dict[str, int] = {}

    def doubt(self, request: Request, usage: Usage) -> str:
        """Why the reply may be another request's, or an empty text."""
        if not usage.input:
            return ""
        group = (request.kind, *(request.attached.size if request.attached else (0, 0)))
        line = self._lines.setdefault(group, _Line())
        size, tokens = float(len(request.context.encode())), float(usage.input)
        off = line.distance(size, tokens)
        if line.n >= _ENOUGH and off > max(_LEAST, _TIMES * line.usual):
            if self._doubted.pop(request.id, None) == usage.input:
                return ""  # counted alike twice; too far out to learn from
            self._doubted[request.id] = usage.input
            return f"{usage.input} prompt tokens, {off:.0f} off what its text should have"
        line.add(size, tokens)
        return ""
