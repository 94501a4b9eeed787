"""The page a report is: parts in the order they were added, rendered once, with everything escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from llava import __version__, storage
from llava.redaction import redact, visible
from llava.report.charts import Bar, bar_chart, histogram, line_chart
from llava.report.explorer import Sample, explorer
from llava.report.gallery import Card, gallery
from llava.written_numbers import readable


@dataclass(frozen=True)
class _Part:
    title: str
    anchor: str
    body: Markup


def _shown(cell: float | str | None) -> str:
    if cell is None:
        return "–"
    return visible(redact(cell)) if isinstance(cell, str) else readable(cell)


class Report:
    """A self-contained HTML page. Every method adds one part and returns the report, so calls can be chained.

    Text, names and cells are shown as text whatever they contain; only `raw` takes HTML.

    Args:
        title: the page's heading.
        subtitle: one line under it, such as where the data came from.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = redact(subtitle)
        self._parts: list[_Part] = []
        self._scripts = False

    def text(self, paragraph: str) -> Report:
        """A paragraph; line breaks are kept."""
        return self._add("", Markup('<p class="text">{}</p>').format(redact(paragraph)))

    def heading(self, title: str) -> Report:
        """A heading above the parts that follow."""
        return self._add(title, Markup(""))

    def figures(self, figures: Mapping[str, float | str]) -> Report:
        """The few numbers that matter, large."""
        tiles = Markup("").join(
            Markup("<div><b>{}</b><span>{}</span></div>").format(readable(value), name)
            for name, value in figures.items()
        )
        return self._add("", Markup('<div class="figures">{}</div>').format(tiles))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[float | str | None]]) -> Report:
        """A table; numbers are set right, None is shown as a dash.

        Raises:
            ValueError: a row has another number of cells than there are columns.
        """
        words = [any(isinstance(row[k], str) for row in rows if len(row) > k) for k in range(len(columns))]
        head = Markup("").join(
            Markup('<th class="{}">{}</th>').format("" if word else "number", column)
            for word, column in zip(words, columns, strict=True)
        )
        body = Markup("")
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(f"table {title!r}: a row has {len(row)} cells for {len(columns)} columns: {row!r}")
            cells = Markup("").join(
                Markup('<td class="{}">{}</td>').format(
                    "" if isinstance(cell, str) or (cell is None and word) else "number",
                    _shown(cell),
                )
                for word, cell in zip(words, row, strict=True)
            )
            body += Markup("<tr>{}</tr>").format(cells)
        table = Markup('<div class="scroll"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>')
        return self._add(title, table.format(head, body))

    def line_chart(
        self,
        title: str,
        series: Mapping[str, Sequence[tuple[float, float | None]]],
        x: str,
        y: str,
        log_y: bool = False,
    ) -> Report:
        """Lines over a common x axis; values that are not finite leave a gap."""
        return self._add(title, line_chart(series, x=x, y=y, log_y=log_y))

    def bar_chart(self, title: str, bars: Sequence[Bar], y: str) -> Report:
        """Bars, with whiskers where an interval is known; grouped by label where bars name a series."""
        return self._add(title, bar_chart(bars, y=y))

    def histogram(self, title: str, values: Sequence[float | None], x: str) -> Report:
        """How values are distributed."""
        return self._add(title, histogram(values, x=x))

    def gallery(self, title: str, cards: Sequence[Card]) -> Report:
        """Images with lines and boxes; cards with tags can be filtered in the page."""
        return self._add(title, gallery(cards, f"g{len(self._parts)}"))

    def explorer(
        self,
        title: str,
        samples: Iterable[Sample],
        contenders: Sequence[str],
        profiles: Sequence[str],
        thumbnails: Mapping[str, bytes],
    ) -> Report:
        """Every sample, with search and filters; once a page (see `llava.report.explorer`). Allows inline scripts."""
        return self.raw(title, explorer(samples, contenders, profiles, thumbnails), scripts=True)

    def facts(self, title: str, facts: Sequence[tuple[str, str, str]]) -> Report:
        """Lines of (name, value, address); where there is an address, the value links to it."""
        body = Markup("")
        for name, value, address in facts:
            text = Markup("{}").format(visible(redact(value)))
            if address:
                text = Markup('<a href="{}">{}</a>').format(redact(address), text)
            body += Markup("<tr><th>{}</th><td>{}</td></tr>").format(name, text)
        return self._add(title, Markup('<div class="scroll"><table class="facts">{}</table></div>').format(body))

    def links(self, title: str, links: Sequence[tuple[str, str]]) -> Report:
        """Add links; nothing is fetched until a reader follows one.

        Args:
            links: (text, address), the address relative to the page's own place or a URI.
        """
        items = Markup("").join(Markup('<li><a href="{}">{}</a></li>').format(href, text) for text, href in links)
        return self._add(title, Markup("<ul>{}</ul>").format(items))

    def raw(self, title: str, html: str, *, scripts: bool = False) -> Report:
        """HTML taken as it is: the caller has escaped whatever came from outside.

        Args:
            title: heading, may be empty.
            html: the part's body.
            scripts: allow inline scripts in this page; without it the page's policy forbids every script.
        """
        self._scripts = self._scripts or scripts
        return self._add(title, Markup(html))  # nosec B704  (the caller says it is HTML)

    def html(self, *, refresh_s: int = 0) -> str:
        """The whole page; one that loads itself again after `refresh_s` seconds, 0: never."""
        assets = resources.files("llava.report")
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string((assets / "page.html.j2").read_text(encoding="utf-8"))
        return template.render(
            title=self.title,
            subtitle=self.subtitle,
            parts=self._parts,
            style=Markup((assets / "style.css").read_text(encoding="utf-8")),  # nosec B704
            scripts=self._scripts,
            refresh_s=refresh_s,
            version=__version__,
        )

    def write(self, uri: str) -> None:
        """Write the page to a path or URI.

        Raises:
            StorageError: it cannot be written.
        """
        storage.write_text(uri, self.html())

    def _add(self, title: str, body: Markup) -> Report:
        anchor = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        self._parts.append(_Part(title, f"{anchor}-{len(self._parts)}" if anchor else "", body))
        return self
