"""The dataset card: a Markdown file beside the rows that says what they are and how they came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llava import __version__
from llava.expansion.opinions.judge import Judge
from llava.expansion.rows.mixture import PartCount


def dataset_card(
    *,
    settings: Mapping[str, Any],
    data_hash: str,
    images: int,
    blocked: int,
    kept: Mapping[str, int],
    dropped: Mapping[str, int],
    gates: Mapping[str, int],
    flags: Mapping[str, int],
    teacher: str,
    usage: Mapping[str, int],
    cost: float,
    currency: str,
    judge: Judge | None,
    parts: Sequence[PartCount],
    warning: str = "",
    lacking: Sequence[str] = (),
    seen: Sequence[str] = (),
) -> str:
    """The card's text; its head is the YAML that data set hubs read.

    Args:
        lacking: warnings about the annotations.
        seen: kinds whose teacher got the images themselves.
    """
    total = sum(kept.values())
    lines = [
        "---",
        "language: en",
        "task_categories: [visual-question-answering, image-to-text]",
        f"size_categories: {_size(total)}",
        "tags: [llava, synthetic]",
        "---",
        "",
        "# Visual instruction rows",
        "",
        *([f"> **Not for training:** {warning}.", ""] if warning else []),
        *(line for text in lacking for line in (f"> **Note:** {text}.", "")),
        f"{total:,} rows about {images:,} images, in LLaVA's JSON format, by llava-pipelines {__version__}.",
        "",
        "## Source",
        "",
        f"- Annotations: `{settings.get('annotations_uri', '')}` (SHA-256 `{data_hash[:16]}…`)",
        f"- Images taken out by the block-list of evaluation sets: {blocked:,}",
        f"- Expansion recipe: `{settings.get('expansion_recipe', '')}`, seed {settings.get('seed', 0)}",
        f"- Teacher, as it named itself: {teacher or 'none'}",
        f"- Tokens: {usage['input']:,} in ({usage['cached_input']:,} from its cache), {usage['output']:,} out",
        f"- Cost: {cost:.2f} {currency}",
        "",
        "## Rows",
        "",
        "| kind | kept | dropped |",
        "|---|---:|---:|",
        *(
            f"| {kind} | {kept.get(kind, 0):,} | {dropped.get(kind, 0):,} |"
            for kind in dict.fromkeys([*kept, *dropped])
        ),
        "",
        "## Quality gates",
        "",
        "| gate | dropped | flagged |",
        "|---|---:|---:|",
        *(f"| {gate} | {gates.get(gate, 0):,} | {flags.get(gate, 0):,} |" for gate in dict.fromkeys([*gates, *flags])),
        "",
    ]
    if judge is not None and judge.agreement.rate is not None:
        found = judge.agreement
        sight = "which saw the images" if judge.attacher is not None else "which saw no image"
        kappa = f" (kappa {found.kappa:.2f})" if found.kappa is not None else ""
        lines += [
            f"A judge ({judge.model}, {sight}) agreed with the gates on {found.rate:.0%} of {found.judged:,} replies"
            f"{kappa}, and dropped {found.dropped:,} rows that had passed them.",
            "",
        ]
    if parts:
        lines += ["## Mixture", "", "| part | rows | usable | taken |", "|---|---:|---:|---:|"]
        lines += [f"| {part.data} | {part.rows:,} | {part.usable:,} | {part.taken:,} |" for part in parts] + [""]
    lines += [
        "## Limits",
        "",
        f"{_sight(kept, seen)} The gates find what can be found in text and boxes, not everything that is wrong."
        " Licences and terms of the images, of the annotations and of the teacher's output apply to these rows.",
        "",
    ]
    return "\n".join(lines)


def _sight(kept: Mapping[str, int], seen: Sequence[str]) -> str:
    blind = (
        "The teacher saw captions and boxes, never the image: what nobody annotated is missing, and annotation errors "
        "are inherited."
    )
    if not seen:
        return blind
    told = f"For {', '.join(seen)} the teacher saw the image itself, and may have misread it."
    return told if set(kept) <= set(seen) else f"{told} For all other kinds: {blind[0].lower()}{blind[1:]}"


def _size(rows: int) -> str:
    for limit, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if rows < limit:
            return name
    return "1M<n<10M"
