"""Every sample of a report, searchable and filtered in the page itself, however many there are.

The samples stand in the page as JSON and a small script draws one screen of them at a time, so 20,000 cost a search no
more than some milliseconds. Thumbnails are embedded up to a budget; a sample without one shows its image's reference.
Everything from outside becomes text through `textContent`; control characters are written out.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

from markupsafe import Markup
from PIL import Image

from llava.redaction import redact, visible

THUMBNAIL = 128  # pixels a side at most
PAGE = 48


@dataclass(frozen=True)
class Answer:
    """One contender's answer.

    Attributes:
        text: what it said.
        scores: by profile, from 0 to 1; empty where the right answer is not known.
    """

    text: str
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One question with everything said about it.

    Attributes:
        id: unique among the samples of a page; a link to `#id=...` opens it.
        question: as it was asked.
        expected: the right answer, or empty.
        image: names its thumbnail and is shown where there is none; empty: it has no image.
        tags: what it can be filtered by, such as benchmark and kind; the same keys in every sample of a page.
        answers: by contender; those that did not answer are absent.
    """

    id: str
    question: str
    expected: str
    image: str
    tags: Mapping[str, str]
    answers: Mapping[str, Answer]


def thumbnail(image: Image.Image) -> bytes:
    """A small encoded image (JPEG; PNG where that is tiny anyway, because JPEG smears small drawings)."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=72)
    if max(image.size) <= THUMBNAIL:
        exact = io.BytesIO()
        small.save(exact, "PNG")
        if exact.tell() <= 1.5 * buffer.tell():
            return exact.getvalue()
    return buffer.getvalue()


def explorer(
    samples: Iterable[Sample], contenders: Sequence[str], profiles: Sequence[str], thumbnails: Mapping[str, bytes]
) -> str:
    """HTML of the explorer, for `Report.raw(..., scripts=True)`; one a page.

    Args:
        samples: in the order shown.
        contenders: their titles; the first is the one that "right" and "wrong" speak of.
        profiles: the first is chosen at the start.
        thumbnails: encoded, by `Sample.image`.
    """
    tags: dict[str, dict[str, int]] = {}  # key -> value -> its number
    used: dict[str, int] = {}
    rows: list[str] = []  # as JSON at once: a sample is let go when it is written
    for sample in samples:
        tags = tags or {key: {} for key in sample.tags}
        numbers = [values.setdefault(sample.tags[key], len(values)) for key, values in tags.items()]
        place = used.setdefault(sample.image, len(used)) if sample.image in thumbnails else -1
        texts = [_shown(text) for text in (sample.id, sample.question, sample.expected, sample.image)]
        answers = [_answer(sample.answers.get(name), profiles) for name in contenders]
        rows.append(_json([*texts, place, numbers, answers]))
    if not rows:
        return Markup('<p class="empty">nothing to show</p>')
    data = {
        "page": PAGE,
        "tags": [[_shown(key), [_shown(value) for value in values]] for key, values in tags.items()],
        "contenders": [_shown(name) for name in contenders],
        "profiles": list(profiles),
        "images": [_source(thumbnails[name]) for name in used],
    }
    text = f'{_json(data)[:-1]},"rows":[{",".join(rows)}]}}'
    script = (resources.files("llava.report") / "explorer.js").read_text(encoding="utf-8")
    return Markup(
        '<div class="explorer" id="explorer"><noscript><p class="empty">Searching and filtering need scripts, which '
        "this window does not allow; open the file in a browser.</p></noscript></div>"
        '<script type="application/json" id="explorer-data">{}</script><script>{}</script>'
    ).format(Markup(text), Markup(script))  # nosec B704  (JSON with every < escaped; our own script)


def _json(value: object) -> str:
    """JSON for a script element, in which only "</" and "<!--" end or change the text: escaping every "<" leaves no
    case."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _answer(answer: Answer | None, profiles: Sequence[str]) -> list[object] | None:
    if answer is None:
        return None
    return [
        _shown(answer.text),
        [round(answer.scores[name], 4) if name in answer.scores else None for name in profiles],
    ]


def _shown(text: str) -> str:
    return visible(redact(text))


def _source(data: bytes) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
