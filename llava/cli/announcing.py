"""Tell a webhook of runs that have ended: their state, the stages' figures, links.

Not a task of the pipeline: an exit handler does not run where it is most wanted (a run that is terminated, whose
pods never start, whose namespace is out of quota), and its own failure would be the run's. This looks from outside, at
Kubeflow's API and at the records that stages leave below the pipeline root, so it can change no run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx

from llava import storage
from llava.errors import UserError
from llava.executor import RECORD_NAME, OutputRecord
from llava.retrying import Pauses
from llava.stages.stage import STAGE_MODULES
from llava.validation import validate

FINAL = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
ATTEMPTS = 3
_PAUSES = Pauses(first=4.0)
_TIMEOUT_S = 20.0
_SIGNS = {"SUCCEEDED": ":white_check_mark:"}
# A stage's metrics that a line of chat has room for, best first.
_FIGURES = (
    "accuracy", "score", "final_loss", "validation_loss", "rows", "steps", "tokens_per_second", "accelerator_hours",
    "cost",
)  # fmt: skip
_SHOWN = 4


class ApiError(UserError):
    """Kubeflow's API did not answer, or refused."""


@dataclass(frozen=True)
class EndedRun:
    """A run as Kubeflow lists it."""

    run: str
    name: str
    state: str
    pipeline: str
    root: str
    seconds: float
    failed: tuple[str, ...] = ()
    records: Sequence[OutputRecord] = field(default=())


def ended_runs(api: str, *, namespace: str, since: datetime, token: str = "", most: int = 500) -> list[EndedRun]:
    """Runs that ended after `since`, oldest first.

    Args:
        api: URL of Kubeflow Pipelines' API, as its pods see it: http://ml-pipeline:8888.
        namespace: profile, in a multi-user installation; empty: none.
        since: looked at are runs created up to 14 days before it.
        token: bearer token.
        most: runs looked at.

    Raises:
        ApiError: no answer, or a refusal.
    """
    found: list[EndedRun] = []
    page, seen = "", 0
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    while seen < most:
        query = {"page_size": "50", "sort_by": "created_at desc", "page_token": page, "namespace": namespace}
        try:
            reply = httpx.get(
                f"{api.rstrip('/')}/apis/v2beta1/runs",
                params={name: value for name, value in query.items() if value},
                headers=headers,
                timeout=_TIMEOUT_S,
            )
            body = reply.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise ApiError(f"{api}: no answer: {error}") from error
        if reply.status_code != 200:
            raise ApiError(f"{api}: refused ({reply.status_code}): {str(body)[:300]}")
        runs = body.get("runs", [])
        seen += len(runs)
        for run in runs:
            ended = _time(run.get("finished_at"))
            if run.get("state") in FINAL and ended and ended > since:
                found.append(_ended(run, ended))
        oldest = _time(runs[-1].get("created_at")) if runs else None
        page = body.get("next_page_token", "")
        if not page or (oldest and oldest < since - timedelta(days=14)):
            break
    return list(reversed(found))


def with_records(run: EndedRun, root: str) -> EndedRun:
    """The run with what its stages left below its pipeline root, or below `root` where it names none."""
    place = run.root or root
    if not place:
        return run
    names = ["full", *(f"{kind}-{stage}" for kind in ("from", "only") for stage in STAGE_MODULES)]
    pipelines = [run.pipeline] if run.pipeline else [f"llava-{name}" for name in names]
    records = []
    for pipeline in pipelines:
        folder = storage.join(place, pipeline, run.run)
        for file in storage.list_files(folder):
            if file.path.rsplit("/", 1)[-1] == RECORD_NAME:
                uri = storage.join(folder, file.path)
                records.append(validate(OutputRecord, storage.read_json(uri), uri))
    records.sort(key=lambda record: record.finished_unix)
    return EndedRun(run.run, run.name, run.state, run.pipeline, run.root, run.seconds, run.failed, records)


def message(run: EndedRun, ui: str) -> dict[str, Any]:
    """The body that Slack's incoming webhooks take (and Mattermost's, Rocket.Chat's, Discord's at /slack): `text`.

    Args:
        run: what to tell of.
        ui: URL of Kubeflow's UI; empty: no link.
    """
    name = _escaped(run.name)
    title = f"<{ui.rstrip('/')}/#/runs/details/{run.run}|{name}>" if ui else f"{name} ({run.run})"
    lines = [f"{_SIGNS.get(run.state, ':x:')} {title}: {run.state} after {_duration(run.seconds)}"]
    if run.failed:
        lines.append(f"failed: {_escaped(', '.join(run.failed))}")
    for record in run.records:
        figures = [f"{key} {record.metrics[key]:.4g}" for key in _FIGURES if key in record.metrics][:_SHOWN]
        lines.append(f"• {record.stage}: {', '.join([_duration(record.seconds), *figures])}")
        if report := record.outputs.get("report"):
            lines.append(f"   report: {_escaped(report)}")
    return {"text": "\n".join(lines)}


def post(webhook: str, body: Mapping[str, Any]) -> str:
    """Send to a webhook, with a few attempts; returns what went wrong, empty when it was taken. Never raises.

    The URL of a webhook is its password: of it only the host appears in messages.
    """
    where = urlsplit(webhook).hostname or "the webhook"
    said = ""
    for _ in _PAUSES.attempts(most=ATTEMPTS):
        try:
            reply = httpx.post(webhook, json=dict(body), timeout=_TIMEOUT_S)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            said = f"{where}: {type(error).__name__}"
            continue
        if reply.status_code < 300:
            return ""
        said = f"{where} answered {reply.status_code}: {' '.join(reply.text.split())[:200]}"
        if reply.status_code < 500 and reply.status_code != 429:
            break  # it will say the same again
    return said


def _ended(run: Mapping[str, Any], ended: datetime) -> EndedRun:
    spec = run.get("pipeline_spec") or {}
    spec = spec.get("pipeline_spec", spec)
    tasks = (run.get("run_details") or {}).get("task_details") or []
    failed = dict.fromkeys(str(task.get("display_name", "")) for task in tasks if task.get("state") == "FAILED")
    began = _time(run.get("created_at")) or ended
    return EndedRun(
        run=str(run["run_id"]),
        name=str(run.get("display_name", "")),
        state=str(run["state"]),
        pipeline=str((spec.get("pipelineInfo") or {}).get("name", "")),
        root=str((run.get("runtime_config") or {}).get("pipeline_root") or ""),
        seconds=max((ended - began).total_seconds(), 0.0),
        failed=tuple(failed),
    )


def _time(text: Any) -> datetime | None:
    """A time as the API gives it; None for the zero it gives for what has not happened."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return found if found.year > 1970 else None


def _duration(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s" if rest >= 60 else f"{rest} s"


def _escaped(text: str) -> str:
    """Slack reads & < > as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
