"""What a reader sees of a run: the report, the dataset card, the manifests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from llava import storage
from llava.expansion.asking.ledger import Ledger
from llava.expansion.gates import Panel
from llava.expansion.job import Job
from llava.expansion.opinions.agreement import KEPT, Agreement
from llava.expansion.opinions.judge import Judge
from llava.expansion.opinions.similarity import Similarity
from llava.expansion.rows.building import Built
from llava.expansion.rows.sampling import Sampler
from llava.expansion.showing.card import dataset_card
from llava.expansion.showing.preview import preview_cards
from llava.manifest import Manifest, write_manifest
from llava.report import Report

OFFLINE_WARNING = (
    "the offline teacher fills templates from captions and boxes. Its rows are for trying the pipeline, not for "
    "training a model that anyone will use; set teacher to openai and name a model"
)


@dataclass(frozen=True)
class Run:
    """One finished run, as the report and the card tell of it.

    Attributes:
        judge: with what it said, if one was asked.
        similarity: with the scores of rows, if they were compared with their images.
        opinions: names of what was asked about every row that had passed the gates.
        naive: rows of `pretrain_data`.
        shown: its settings, already free of secrets.
    """

    job: Job
    ledger: Ledger
    panel: Panel
    sampler: Sampler
    built: Built
    judge: Judge | None
    similarity: Similarity | None
    opinions: tuple[str, ...]
    naive: int
    currency: str
    shown: Mapping[str, Any]

    @property
    def offline(self) -> bool:
        """True when no real teacher wrote the rows."""
        return bool(self.job.taught) and self.shown.get("teacher") == "offline"

    @property
    def cost(self) -> float:
        """Of teacher and judge."""
        return self.ledger.cost + (self.judge.ledger.cost if self.judge is not None else 0.0)

    @cached_property
    def images(self) -> int:
        """Images that may be used."""
        return sum(1 for _ in self.job.images())

    @property
    def blocked(self) -> int:
        """Images that the block-list took out."""
        return len(self.job.corpus) - self.images


def publish(run: Run, *, pretrain_uri: str, instruct_uri: str, report_uri: str) -> dict[str, float]:
    """Write everything; returns the run's numbers."""
    numbers = _numbers(run)
    storage.write_text(f"{instruct_uri}.card.md", _card(run))
    _report(run, numbers).write(report_uri)
    fingerprints = {kind.name: kind.fingerprint() for kind in run.job.taught}
    for uri, rows in ((pretrain_uri, run.naive), (instruct_uri, run.built.rows)):
        manifest = Manifest(
            kind="records",
            stage="expand",
            settings=dict(run.shown),
            recipe={"name": run.job.recipe.name, "kinds": fingerprints},
            data_hash=run.job.corpus.sha256,
            parents={"annotations": str(run.shown["annotations_uri"])},
            numbers={"rows": float(rows)} if uri == pretrain_uri else numbers,
        )
        write_manifest(uri, manifest, folder=False)
    return numbers


def _numbers(run: Run) -> dict[str, float]:
    built = run.built
    numbers = {
        "images": float(run.images),
        "rows_pretrain": float(run.naive),
        "rows_instruct": float(built.rows),
        "dropped": float(sum(built.dropped.values())),
        "unanswered": float(built.unanswered),
        "blocked_images": float(run.blocked),
        "cost": run.cost,
        "input_tokens": float(run.ledger.usage.input),
        "cached_input_tokens": float(run.ledger.usage.cached_input),
        "output_tokens": float(run.ledger.usage.output),
    }
    numbers |= {f"rows_{kind}": float(number) for kind, number in built.kept.items()}
    numbers |= {f"dropped_{gate}": float(number) for gate, number in run.panel.hard.items()}
    if run.judge is not None:
        found = run.judge.agreement
        numbers |= {"judged": found.judged, "judge_unscored": found.unread, "judge_cost": run.judge.ledger.cost}
        numbers |= {"judge_agreement": found.rate} if found.rate is not None else {}
        numbers |= {f"judge_score_{kind}": found.mean_score(kind) for kind in found.scores}
    if run.similarity is not None:
        numbers["similarity_unscored"] = run.similarity.unscored
        numbers |= {f"clip_score_{kind}": fmean(scores) for kind, scores in run.similarity.seen.items()}
    return numbers


def _card(run: Run) -> str:
    usage = run.ledger.usage
    return dataset_card(
        settings=dict(run.shown),
        data_hash=run.job.corpus.sha256,
        images=run.images,
        blocked=run.blocked,
        kept=run.built.kept,
        dropped=run.built.dropped,
        gates={name: run.panel.hard[name] for name in [*run.panel.names, *run.opinions]},
        flags={name: run.panel.soft[name] for name in run.panel.names},
        teacher=", ".join(name for name, _ in run.built.teachers.most_common()),
        usage={"input": usage.input, "cached_input": usage.cached_input, "output": usage.output},
        cost=run.cost,
        currency=run.currency,
        judge=run.judge,
        parts=run.built.parts,
        warning=OFFLINE_WARNING if run.offline else "",
        lacking=run.job.warnings,
        seen=[kind.name for kind in run.job.seeing],
    )


def _report(run: Run, numbers: dict[str, float]) -> Report:
    built = run.built
    kinds = list(dict.fromkeys([*built.kept, *built.dropped]))
    report = Report("Data expansion", f"{run.images:,} images from {run.shown['annotations_uri']}")
    report.figures(
        {
            "images": run.images,
            "alignment pairs": run.naive,
            "instruction rows": built.rows,
            "dropped": numbers["dropped"],
            f"cost, {run.currency}": round(run.cost, 4),
        }
    )
    if run.offline:
        report.text(f"WARNING: {OFFLINE_WARNING}.")
    for warning in run.job.warnings:
        report.text(f"WARNING: {warning}.")
    cards = preview_cards(run.sampler.results(), run.sampler.rows(), run.job.images(), str(run.shown["images_uri"]))
    report.gallery("Rows and what they were made from", cards)
    report.table("Rows", ["kind", "kept", "dropped"], [[kind, built.kept[kind], built.dropped[kind]] for kind in kinds])
    gates: list[list[float | str | None]] = [
        [name, run.panel.hard[name], run.panel.soft[name]] for name in run.panel.names
    ]
    gates += [[name, run.panel.hard[name], 0] for name in run.opinions]
    gates += [["unanswered", built.unanswered, 0]] if built.unanswered else []
    report.table("Quality gates", ["gate", "dropped", "flagged"], gates)
    if run.judge is not None:
        _judge_section(report, run.judge, run.currency)
    if run.similarity is not None:
        _similarity_section(report, run.similarity)
    if built.parts:
        rows: list[list[float | str | None]] = [[part.data, part.rows, part.usable, part.taken] for part in built.parts]
        report.table("Mixture", ["part", "rows", "usable", "taken"], rows)
    report.table("Settings", ["setting", "value"], [[name, str(value)] for name, value in run.shown.items()])
    return report


def _judge_section(report: Report, judge: Judge, currency: str) -> None:
    found: Agreement = judge.agreement
    rows: list[list[float | str | None]] = [
        [
            f"dropped by {gate}" if gate != KEPT else "passed the gates",
            found.verdicts[gate, True],
            found.verdicts[gate, False],
        ]
        for gate in found.gates
    ]
    report.table("Judge", ["", "judge: good", "judge: bad"], rows)
    sight = "saw each image" if judge.attacher is not None else "read what the teacher was told, and saw no image"
    report.text(
        f"{judge.model} {sight}; agreement with the gates {_share(found.rate)}, kappa {_share(found.kappa)}, replies "
        f"without a score {found.unread:,}, cost {judge.ledger.cost:.4f} {currency}"
    )
    values = sorted({score for scores in found.scores.values() for score in scores})
    table: list[list[float | str | None]] = [
        [kind, judge.thresholds.of(kind), round(found.mean_score(kind), 3), *(scores[value] for value in values)]
        for kind, scores in found.scores.items()
    ]
    report.table(
        "Judge's scores of what passed the gates", ["kind", "least", "mean", *(f"{value:g}" for value in values)], table
    )


def _similarity_section(report: Report, similarity: Similarity) -> None:
    for kind, scores in similarity.seen.items():
        report.histogram(f"CLIPScore of {kind} rows that passed the gates", scores, "CLIPScore")
    report.table(
        "CLIPScore",
        ["kind", "rows", "mean", "lowest", "least to stay"],
        [
            [kind, len(scores), round(fmean(scores), 3), round(min(scores), 3), similarity.thresholds.of(kind)]
            for kind, scores in similarity.seen.items()
        ],
    )
    report.text(f"{similarity.model}; dropped {similarity.dropped:,}, without a score {similarity.unscored:,}")


def _share(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2f}"
