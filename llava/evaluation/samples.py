"""Samples for a report's explorer: all of them, and thumbnails of as many images as a page can hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from llava.evaluation.benchmark import Question, Scored
from llava.evaluation.question_images import Images
from llava.report import Answer, Sample, thumbnail

MOST_BYTES = 12_000_000  # of thumbnails; about 4,000 photographs
_AT_ONCE = 64


def samples_of(
    key: str,
    questions: Sequence[Question],
    answers: Mapping[str, Mapping[str, str]],
    scored: Mapping[str, Sequence[Scored]],
) -> Iterator[Sample]:
    """Every question of one benchmark, one at a time.

    Args:
        key: of the benchmark; empty where the page has one only.
        questions: in the order shown.
        answers: by contender's title and question id.
        scored: by contender's title.
    """
    scores = {title: {item.question.id: item.scores for item in items} for title, items in scored.items()}
    for question in questions:
        yield Sample(
            id=f"{key}/{question.id}" if key else question.id,
            question=question.text,
            expected=question.expected,
            image=image_name(key, question),
            tags={**({"benchmark": key} if key else {}), "kind": question.kind},
            answers={
                title: Answer(
                    said[question.id],
                    {str(name): value for name, value in scores.get(title, {}).get(question.id, {}).items()},
                )
                for title, said in answers.items()
                if question.id in said
            },
        )


def image_name(key: str, question: Question) -> str:
    """Names a question's first image in a page."""
    if not question.images:
        return ""
    reference = question.images[0]
    shown = reference if len(reference) < 300 else f"inline image of {question.id}"
    return f"{key}/{shown}" if key else shown


def thumbnails_of(
    key: str, questions: Iterable[Question], images: Images, most_bytes: int = MOST_BYTES
) -> dict[str, bytes]:
    """Thumbnails by image name, in the order of the questions, until the budget is used up. Broken images have none."""
    wanted: dict[str, str] = {}
    for question in questions:
        if question.images:
            wanted.setdefault(image_name(key, question), question.images[0])
    names = list(wanted)
    made: dict[str, bytes] = {}
    used = 0
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        found, _ = images.load_all([wanted[name] for name in some])
        for name in some:
            if wanted[name] in found:
                made[name] = thumbnail(found[wanted[name]])
                used += len(made[name])
        if used > most_bytes:
            break
    return made
