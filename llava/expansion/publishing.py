"""What a reader sees of a run: the report, the dataset card, the manifests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llava import storage
from llava.expansion.building import Built
from llava.expansion.card import dataset_card
from llava.expansion.gates import Panel
from llava.expansion.job import Job
from llava.expansion.judge import Agreement
from llava.expansion.ledger import Ledger
from llava.expansion.preview import preview_cards
from llava.expansion.sampling import Sampler
from llava.manifest import Manifest, write_manifest
from llava.report import Report


@dataclass(frozen=True)
class Facts:
    """Counts and settings of one run; `settings` are already free of secrets."""

    settings: dict[str, Any]
    pictures: int
    blocked: int
    naive: int
    built: Built
    agreement: Agreement | None
    currency: str


def publish(
    facts: Facts,
    job: Job,
    ledger: Ledger,
    panel: Panel,
    sampler: Sampler,
    *,
    pretrain_uri: str,
    instruct_uri: str,
    report_uri: str,
) -> dict[str, float]:
    """Write everything; returns the run's numbers."""
    numbers = _numbers(facts, ledger, panel)
    storage.write_text(f"{instruct_uri}.card.md", _card(facts, job, ledger, panel))
    _report(facts, job, ledger, panel, sampler, numbers).write(report_uri)
    fingerprints = {kind.name: kind.fingerprint() for kind in job.taught}
    for uri, rows in ((pretrain_uri, facts.naive), (instruct_uri, facts.built.rows)):
        manifest = Manifest(
            kind="records",
            stage="expand",
            settings=facts.settings,
            recipe={"name": job.recipe.name, "kinds": fingerprints},
            data_hash=job.corpus.sha256,
            parents={"annotations": str(facts.settings["annotations_uri"])},
            numbers={"rows": float(rows)} if uri == pretrain_uri else numbers,
        )
        write_manifest(uri, manifest, folder=False)
    return numbers


def _numbers(facts: Facts, ledger: Ledger, panel: Panel) -> dict[str, float]:
    built = facts.built
    numbers = {
        "pictures": float(facts.pictures),
        "rows_pretrain": float(facts.naive),
        "rows_instruct": float(built.rows),
        "dropped": float(sum(built.dropped.values())),
        "unanswered": float(built.unanswered),
        "blocked_pictures": float(facts.blocked),
        "cost": ledger.cost,
        "input_tokens": float(ledger.usage.input),
        "cached_input_tokens": float(ledger.usage.cached_input),
        "output_tokens": float(ledger.usage.output),
    }
    numbers |= {f"rows_{kind}": float(number) for kind, number in built.kept.items()}
    numbers |= {f"dropped_{gate}": float(number) for gate, number in panel.hard.items()}
    if facts.agreement is not None and facts.agreement.rate is not None:
        numbers["judge_agreement"] = facts.agreement.rate
    return numbers


def _card(facts: Facts, job: Job, ledger: Ledger, panel: Panel) -> str:
    usage = ledger.usage
    return dataset_card(
        settings=facts.settings,
        data_hash=job.corpus.sha256,
        pictures=facts.pictures,
        blocked=facts.blocked,
        kept=facts.built.kept,
        dropped=facts.built.dropped,
        gates={name: panel.hard[name] for name in panel.names},
        flags={name: panel.soft[name] for name in panel.names},
        teacher=", ".join(name for name, _ in facts.built.teachers.most_common()),
        usage={"input": usage.input, "cached_input": usage.cached_input, "output": usage.output},
        cost=ledger.cost,
        currency=facts.currency,
        agreement=facts.agreement,
        parts=facts.built.parts,
    )


def _report(
    facts: Facts, job: Job, ledger: Ledger, panel: Panel, sampler: Sampler, numbers: dict[str, float]
) -> Report:
    built = facts.built
    kinds = list(dict.fromkeys([*built.kept, *built.dropped]))
    report = Report("Data expansion", f"{facts.pictures:,} pictures from {facts.settings['annotations_uri']}")
    report.figures(
        {
            "pictures": facts.pictures,
            "alignment pairs": facts.naive,
            "instruction rows": built.rows,
            "dropped": numbers["dropped"],
            f"cost, {facts.currency}": round(ledger.cost, 4),
        }
    )
    report.table("Rows", ["kind", "kept", "dropped"], [[kind, built.kept[kind], built.dropped[kind]] for kind in kinds])
    gates: list[list[float | str | None]] = [[name, panel.hard[name], panel.soft[name]] for name in panel.names]
    gates += [["unanswered", built.unanswered, 0]] if built.unanswered else []
    report.table("Quality gates", ["gate", "dropped", "flagged"], gates)
    if facts.agreement is not None:
        found = facts.agreement
        report.table(
            "Judge",
            ["", "judge: good", "judge: bad"],
            [
                ["kept by the gates", found.kept_good, found.kept_bad],
                ["dropped", found.dropped_good, found.dropped_bad],
            ],
        )
        report.text(
            f"agreement {_share(found.rate)}, kappa {_share(found.kappa)}, replies without verdict {found.unread}"
        )
    if built.parts:
        rows: list[list[float | str | None]] = [[part.data, part.rows, part.usable, part.taken] for part in built.parts]
        report.table("Mixture", ["part", "rows", "usable", "taken"], rows)
    cards = preview_cards(sampler.results(), sampler.rows(), job.pictures(), str(facts.settings["images_uri"]))
    report.gallery("Rows and what they were made from", cards)
    report.table("Settings", ["setting", "value"], [[name, str(value)] for name, value in facts.settings.items()])
    return report


def _share(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2f}"
