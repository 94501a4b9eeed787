"""What a benchmark asks, before a model is loaded: `llava evaluate show-prompt`."""

from __future__ import annotations

import json
from itertools import islice
from typing import Annotated

import typer

from llava.errors import SettingsError

app = typer.Typer()


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
