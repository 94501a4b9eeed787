"""`llava data convert`: rows of one form as rows of another."""

from __future__ import annotations

from typing import Annotated

import typer


def convert_rows(
    data: Annotated[
        str, typer.Option("--data", help="Rows in any form of docs/rows.md: a file, several, a folder, a mixture")
    ],
    out: Annotated[str, typer.Option("--out", help="File to write: path or s3:// URI")],
    to: Annotated[str, typer.Option("--to", help="llava, messages, sharegpt, parquet or webdataset")] = "llava",
    images: Annotated[str, typer.Option("--images", help="Root of the images: folder or s3:// URI")] = "",
    max_bad_rows: Annotated[float, typer.Option(help="Largest share of unusable rows", min=0, max=1)] = 0.0,
) -> None:
    """Write rows in another form; parquet and webdataset hold the images, the others name them."""
    from llava.data.converting import FORMS, convert
    from llava.data.images import ImageSource
    from llava.data.records import check_threshold, read_records
    from llava.errors import SettingsError

    if to not in FORMS:
        raise SettingsError(f"--to: found {to!r}; expected one of {', '.join(FORMS)}")
    file = read_records(data)
    check_threshold(file.problems, file.total, max_bad_rows)
    source = ImageSource(images, cache_bytes=0, places=file.places)
    moved = convert(file.records, to, out, source, frozenset(file.places))
    typer.echo(f"{out}: {len(file.records)} rows as {to}, {len(file.problems)} left out")
    for name, count in file.repairs.most_common():
        typer.echo(f"  {count:>8}  {name} (put right)")
    if moved:
        typer.echo(f"their images are in {moved}: give it as --images or images_uri")
