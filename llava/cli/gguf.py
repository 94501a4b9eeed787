"""`llava gguf`: weights from llama.cpp's world as a directory that a recipe can name."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer()


@app.command("gguf")
def gguf(
    file: Annotated[str, typer.Option(help="The .gguf file of a language model")],
    out: Annotated[str, typer.Option(help="Where the model directory goes")],
) -> None:
    """Write a GGUF file's language model and tokenizer as a hub directory, dequantised, for `model.language_model`."""
    from llava.model.gguf import write_dequantised

    count = write_dequantised(file, out)
    typer.echo(f"{count / 1e6:,.1f} million parameters written to {out}; name it as the recipe's model.language_model")
