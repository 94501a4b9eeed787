"""`llava data`: verify a dataset before a GPU is paid for, and pack its images into tar shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llava import extras
from llava.cli.data_convert import convert_rows

if TYPE_CHECKING:
    from llava.data.check import CheckResult
    from llava.data.labels import RowEncoder
    from llava.data.preprocess import Preprocessor
    from llava.data.records import RecordFile
    from llava.errors import RowError
    from llava.report import Report

app = typer.Typer(no_args_is_help=True, help="Check a dataset, convert its rows, pack images into tar shards.")
app.command("convert")(convert_rows)

_SHOWN_PROBLEMS = 200
_SHOWN_ROWS = 12

Data = Annotated[str, typer.Option("--data", help="Rows in any form of docs/rows.md: a file, several, a folder")]
Images = Annotated[str, typer.Option("--images", help="Root of the images: folder, s3:// URI, or the shards of `pack`")]
Threads = Annotated[int, typer.Option(help="Images read at once", min=1)]


@app.command("check")
def check(
    data: Data,
    images: Images = "",
    recipe: Annotated[
        str, typer.Option(help="Also encode every row with this recipe's template and tokenizer (needs transformers)")
    ] = "",
    stage: Annotated[str, typer.Option(help="Section of the recipe: pretrain or finetune")] = "finetune",
    overrides: Annotated[str, typer.Option(help='Recipe fields as JSON: {"finetune.max_length": 4096}')] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="Look at the ends of each JPEG instead of decoding it")
    ] = False,
    threads: Threads = 16,
    max_bad_rows: Annotated[float, typer.Option(help="Largest share of unusable rows", min=0, max=1)] = 0.0,
    repairs: Annotated[
        str, typer.Option(help="Write each unusable row and what would be right here, as JSON lines")
    ] = "",
    clean: Annotated[str, typer.Option(help="Write the usable rows here, as LLaVA JSON")] = "",
    report: Annotated[str, typer.Option(help="Write an HTML summary here")] = "",
) -> None:
    """Verify every row and every image; exit with 2 when more rows than allowed are unusable.

    Each image is read once and decoded whole, from disk or a store, many at a time.
    """
    from llava.data.check import check_rows
    from llava.data.images import ImageSource
    from llava.data.records import read_records, write_records

    file = read_records(data)
    encoder, preprocessor = _encoding(recipe, stage, overrides) if recipe else (None, None)
    source = ImageSource(images, cache_bytes=0, places=file.places)
    with _progress("data check") as progress:
        result = check_rows(
            file,
            source,
            encoder,
            preprocessor,
            depth="header" if quick else "full",
            threads=threads,
            progress=progress,
        )
    if repairs:
        _write_repairs(repairs, result.problems)
    if clean:
        write_records(clean, (file.records[position] for position in result.good))
    if report:
        make_report(file, result, source, encoded=encoder is not None).write(report)
    _print_summary(file, result)
    result.stop_above(max_bad_rows)


@app.command("pack")
def pack(
    data: Data,
    out: Annotated[str, typer.Option("--out", help="Folder or s3:// URI of the shards; use it as --images afterwards")],
    images: Images = "",
    shard_mb: Annotated[int, typer.Option(help="Size at which a shard is closed, in MB (10^6 bytes)", min=1)] = 512,
    threads: Threads = 16,
    max_bad_images: Annotated[float, typer.Option(help="Largest share of images left out", min=0, max=1)] = 0.0,
) -> None:
    """Copy the images that rows name into uncompressed tars with an index: few objects, and still random access."""
    from llava.data.images import ImageError, ImageSource
    from llava.data.records import read_records
    from llava.data.shards import pack_images
    from llava.errors import DataError

    file = read_records(data)
    refs = list(dict.fromkeys(ref for record in file.records for ref in record.images))
    missing: list[ImageError] = []

    def left_out(error: ImageError) -> None:
        missing.append(error)
        if len(missing) > max_bad_images * len(refs):
            raise DataError(
                f"{len(missing)} of {len(refs)} images cannot be packed, more than max_bad_images = {max_bad_images:g}"
                f" allows; the last: {error}"
            ) from error

    source = ImageSource(images, cache_bytes=0, places=file.places)
    with _progress("data pack") as progress:
        index = pack_images(
            refs,
            source.read_image,
            out,
            shard_bytes=shard_mb * 1_000_000,
            threads=threads,
            left_out=left_out,
            progress=lambda done: progress("images", done, len(refs)),
        )
    size = sum(member[2] for member in index.members.values())
    typer.echo(f"{len(index.members)} images, {size / 1e6:,.1f} MB, in {len(index.shards)} shard(s) below {out}")
    for error in missing:
        typer.echo(f"left out: {error}")


def make_report(file: RecordFile, result: CheckResult, images: Any, *, encoded: bool) -> Report:
    """The HTML summary of a check."""
    from llava.data.images import ImageError
    from llava.report import Card, Report

    page = Report("Dataset check", file.uri)
    share = len(result.good) / max(result.total, 1)
    page.figures(
        {"rows": result.total, "usable": len(result.good), "share": f"{share:.2%}", "images": len(result.sizes)}
    )
    page.table("Problems", ["problem", "rows"], [[name, count] for name, count in result.counts.most_common()])
    page.table("Put right or worth knowing", ["what", "rows"], [[n, c] for n, c in result.notes.most_common()])
    if encoded and result.good:
        page.figures({"tokens": int(result.facts.lengths.sum()), "trained tokens": int(result.facts.supervised.sum())})
        page.histogram("Tokens a row, visual tokens included", result.facts.lengths.tolist(), x="tokens")
        page.histogram("Trained tokens a row", result.facts.supervised.tolist(), x="tokens")
    if result.sizes:
        sides = [max(size) for size in result.sizes.values()]
        page.histogram("Longer side of the images", sides, x="pixels")
    rows = [(problem.row, problem.field, problem.problem, str(problem)) for problem in result.problems]
    page.table(
        f"Unusable rows (first {_SHOWN_PROBLEMS})", ["row", "field", "problem", "message"], rows[:_SHOWN_PROBLEMS]
    )
    cards = []
    step = max(1, len(result.good) // _SHOWN_ROWS)
    for position in result.good[::step][:_SHOWN_ROWS]:
        record = file.records[position]
        try:
            image = images.load(record.images[0]) if record.images else None
        except ImageError:  # looked at with --quick, and broken after all: the message of a full check says so
            image = None
        cards.append(Card(image, [f"{record.id} (row {record.index})", *(f"{t.role}: {t.text}" for t in record.turns)]))
    page.gallery("Some of the usable rows", cards)
    return page


def _encoding(recipe: str, stage: str, overrides: str) -> tuple[RowEncoder, Preprocessor]:
    from llava.config import load_recipe
    from llava.data.labels import RowEncoder
    from llava.data.preprocess import Preprocessor
    from llava.data.templates import get_template
    from llava.errors import SettingsError

    extras.require("--recipe (without it rows and images are checked)", "train", ["torch", "transformers"])
    from llava.model.processor import build_processor
    from llava.model.special_tokens import load_tokenizer

    loaded = load_recipe(recipe, overrides)
    if stage not in ("pretrain", "finetune"):
        raise SettingsError(f"stage: found {stage!r}; expected pretrain or finetune")
    train = loaded.pretrain if stage == "pretrain" else loaded.finetune
    template = get_template(train.template, load_tokenizer(loaded.model.language_model))
    processor = build_processor(loaded.model, template, train.image_aspect_ratio)
    encoder = RowEncoder(template, processor.tokenizer, max_length=train.max_length)
    return encoder, Preprocessor.from_processor(processor)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[str, int, int], None]]:
    from llava.telemetry import Telemetry

    with Telemetry("data", what) as telemetry:
        yield lambda name, done, total: telemetry.progress(name, done, total)


def _write_repairs(uri: str, problems: list[RowError]) -> None:
    import json

    from llava import storage

    lines = [
        {"file": p.file, "row": p.row, "field": p.field, "problem": p.problem, "found": p.value, "expected": p.expected}
        for p in sorted(problems, key=lambda problem: problem.row)
    ]
    storage.write_text(uri, "".join(json.dumps(line, ensure_ascii=False, default=repr) + "\n" for line in lines))


def _print_summary(file: RecordFile, result: CheckResult) -> None:
    typer.echo(f"{file.uri}: {len(result.good)} of {result.total} rows usable, {len(result.sizes)} images")
    first = {problem.problem: problem for problem in reversed(result.problems)}
    for name, count in result.counts.most_common():
        typer.echo(f"  {count:>8}  {name:<18} first: {first[name]}")
    for name, count in result.notes.most_common():
        typer.echo(f"  {count:>8}  {name:<18} (usable)")
    lengths = result.facts.lengths
    if len(lengths) and lengths.any():
        import numpy as np

        shown = ", ".join(f"p{q} {int(np.percentile(lengths, q))}" for q in (5, 50, 95))
        typer.echo(
            f"  tokens a row: {shown}, longest {int(lengths.max())}; trained {int(result.facts.supervised.sum())}"
        )
