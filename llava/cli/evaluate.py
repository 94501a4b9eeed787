"""`llava evaluate show-prompt`: what a benchmark asks. `judge`, `judge-export`, `judge-import`: scores by a judge.
`checkpoints`: the history of a run."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from llava.cli.evaluate_checkpoints import evaluate_checkpoints
from llava.errors import SettingsError

if TYPE_CHECKING:
    from llava.stages.judging import Judging

app = typer.Typer()
app.command("checkpoints")(evaluate_checkpoints)

_Benchmark = Annotated[str, typer.Option("--benchmark", help="mm-vet or llava-bench")]
_Questions = Annotated[str, typer.Option("--questions-uri", help="The benchmark's folder")]
_Predictions = Annotated[str, typer.Option("--predictions", help="A finished run's predictions: folder or file")]
_Contender = Annotated[str, typer.Option("--contender", help="Whose file of the folder")]
_Model = Annotated[str, typer.Option("--judge-model", help="The judge's name as its endpoint knows it")]
_Ledger = Annotated[str, typer.Option("--ledger-uri", help="Where the judge's replies are kept; default: beside")]
_Extra = Annotated[str, typer.Option("--extra-body", help="JSON: fields of the request that replace the benchmark's")]
_Unjudged = Annotated[
    float, typer.Option("--max-unjudged", min=0, max=1, help="Largest share of answers that may have no verdict")
]
_Prices = Annotated[str, typer.Option("--prices", help="Price table (YAML); empty: the bundled one")]


@app.command("show-prompt")
def show_prompt(
    benchmark: Annotated[str, typer.Option(help="The benchmark's name")],
    questions_uri: Annotated[str, typer.Option(help="The benchmark's folder, or its files separated by commas")],
    limit: Annotated[int, typer.Option(min=1, help="How many questions")] = 1,
    question: Annotated[str, typer.Option(help="Only the question of this id")] = "",
    template: Annotated[
        str, typer.Option(help="Show the whole prompt of a conversation template, e.g. v1, instead of the user's text")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="A JSON line a question: id, images, text, expected")] = False,
) -> None:
    """Print questions exactly as the model gets them, character by character."""
    from llava.evaluation.benchmarks import get_benchmark

    questions = get_benchmark(benchmark).read(questions_uri)
    chosen = [item for item in questions if not question or item.id == question]
    if not chosen:
        raise SettingsError(
            f"question: found {question!r}; expected one of the {len(questions)} ids of {questions_uri}"
        )
    for item in islice(chosen, limit):
        text = _whole(template, item.text, len(item.images)) if template else item.text
        if as_json:
            row = {"id": item.id, "images": [ref[:200] for ref in item.images], "text": text, "expected": item.expected}
            typer.echo(json.dumps(row, ensure_ascii=False))
        else:
            typer.echo(text)


def _whole(name: str, text: str, images: int) -> str:
    from llava.data.records import Turn
    from llava.data.templates import get_template

    return get_template(name).prompt([Turn("human", "<image>\n" * images + text)])


@app.command("judge")
def judge(
    benchmark: _Benchmark,
    questions_uri: _Questions,
    predictions: _Predictions,
    judge_model: _Model,
    contender: _Contender = "finetuned",
    judge_endpoint: Annotated[str, typer.Option(help="Base URL of an OpenAI-compatible endpoint")] = "",
    max_cost: Annotated[float, typer.Option(min=0, help="Budget; 0: none")] = 0.0,
    prices: _Prices = "",
    concurrency: Annotated[int, typer.Option(min=1, help="Most requests in flight")] = 8,
    ledger_uri: _Ledger = "",
    extra_body: _Extra = "",
    max_unjudged: _Unjudged = 0.01,
) -> None:
    """Score finished predictions of a judged benchmark; every reply is kept and never paid for twice."""
    from llava.expansion.asking.limits import Limits
    from llava.expansion.asking.teaching import TeacherSettings
    from llava.stages.judging import judge_online, open_judging
    from llava.telemetry import Telemetry

    settings = TeacherSettings(
        "openai",
        judge_endpoint,
        judge_model,
        prices,
        max_cost,
        limits=Limits(concurrency=concurrency, max_unusable=1.0),
    )
    judging = open_judging(
        benchmark, questions_uri, predictions, settings,
        contender=contender, ledger_uri=ledger_uri, extra_body=_fields(extra_body), max_unjudged=max_unjudged,
    )  # fmt: skip
    with Telemetry("evaluate", "judge") as telemetry:
        _show(judge_online(judging, telemetry))


@app.command("judge-export")
def judge_export(
    benchmark: _Benchmark,
    questions_uri: _Questions,
    predictions: _Predictions,
    judge_model: _Model,
    out: Annotated[str, typer.Option(help="Folder for the batch files")],
    contender: _Contender = "finetuned",
    ledger_uri: _Ledger = "",
    extra_body: _Extra = "",
) -> None:
    """Write what a judge is to be asked as batch files for a provider, or for vLLM's run-batch."""
    from llava.stages.judging import export_judge_batch

    judging = _offline(benchmark, questions_uri, predictions, judge_model, contender, ledger_uri, extra_body)
    for uri, requests, size in export_judge_batch(judging, out):
        typer.echo(f"{uri}: {requests} requests, {size} bytes")


@app.command("judge-import")
def judge_import(
    benchmark: _Benchmark,
    questions_uri: _Questions,
    predictions: _Predictions,
    judge_model: _Model,
    answers: Annotated[str, typer.Option(help="Answer files of the provider, separated by commas")],
    contender: _Contender = "finetuned",
    ledger_uri: _Ledger = "",
    extra_body: _Extra = "",
    prices: _Prices = "",
    max_unjudged: _Unjudged = 0.01,
) -> None:
    """Read a judge's answers from batch files, and score."""
    from llava.stages.judging import import_judge_batch
    from llava.telemetry import Telemetry

    judging = _offline(
        benchmark, questions_uri, predictions, judge_model, contender, ledger_uri, extra_body, prices, max_unjudged
    )
    with Telemetry("evaluate", "judge") as telemetry:
        _show(import_judge_batch(judging, [part.strip() for part in answers.split(",") if part.strip()], telemetry))


def _offline(
    benchmark: str,
    questions_uri: str,
    predictions: str,
    judge_model: str,
    contender: str,
    ledger_uri: str,
    extra_body: str,
    prices: str = "",
    max_unjudged: float = 0.01,
) -> Judging:
    from llava.expansion.asking.teaching import TeacherSettings
    from llava.stages.judging import open_judging

    return open_judging(
        benchmark, questions_uri, predictions, TeacherSettings("openai", "", judge_model, prices),
        contender=contender, ledger_uri=ledger_uri, extra_body=_fields(extra_body), max_unjudged=max_unjudged,
    )  # fmt: skip


def _fields(text: str) -> dict[str, object] | None:
    from llava.parsing import Malformed, parse_json

    if not text:
        return None
    try:
        fields = parse_json(text)
    except Malformed as error:
        raise SettingsError(f"extra_body: {error}; expected a JSON object") from error
    if not isinstance(fields, dict):
        raise SettingsError(f"extra_body: found {text!r}; expected a JSON object")
    return fields


def _show(metrics: dict[str, float]) -> None:
    for name, value in metrics.items():
        typer.echo(f"{name} {value:.4f}")
