"""The table people quote: a row a model, a column a benchmark, published rows below for the eye."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llava.evaluation.statistics import Interval
from llava.evaluation.suite import Column, Suite

Row = list[float | str | None]


def quoted(suite: Suite, figures: Mapping[str, Mapping[str, Interval | str]]) -> tuple[list[str], list[Row]]:
    """Columns and rows in the suite's units.

    Args:
        suite: which columns, in which unit.
        figures: by model and column's key; a text where there is no figure here, such as the name of a file to hand in.
    """
    columns = ["model", *(column.title or column.key for column in suite.benchmarks)]
    rows: list[Row] = []
    for model, values in figures.items():
        row: Row = [model]
        for column in suite.benchmarks:
            value = values.get(column.key)
            row.append(in_unit(column, value.value) if isinstance(value, Interval) else value)
        rows.append(row)
    for published in suite.published:
        row = [published.model]
        row += [_digits(column, published.values.get(column.key)) for column in suite.benchmarks]
        rows.append(row)
    return columns, rows


def in_unit(column: Column, value: float) -> str:
    """A figure as it is quoted: scaled and rounded."""
    return f"{value * column.scale:.{column.digits}f}"


def _digits(column: Column, value: float | None) -> str | None:
    return None if value is None else f"{value:.{column.digits}f}"


def as_text(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """The table in a monospaced window."""
    cells = [list(columns), *([("–" if cell is None else str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )
