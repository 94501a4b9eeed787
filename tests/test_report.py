"""Reports: everything from outside is text, charts say what they were given, and a real browser shows the page."""

from __future__ import annotations

import io
import math
import re
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from llava.report import Bar, Box, Card, Report
from llava.report.charts import MOST_POINTS
from llava.report.numbers import log_ticks, ticks
from llava.written_numbers import readable
from tests.browser import needs_chromium, visit

HOSTILE = (
    "</title></style><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">'\"{{7*7}}"
)
PAGE_TAGS = "html head meta title style body main header h1 h2 p section div b span table thead tbody tr th td i footer"
OURS = {*PAGE_TAGS.split(), "svg", "line", "text", "polyline", "circle", "rect", "g", "label", "input", "img"}
VOID = {"meta", "img", "br", "input", "link", "hr"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails where tags do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def of(self, tag: str, kind: str | None = None) -> list[dict[str, str | None]]:
        return [
            attrs for name, attrs in self.tags if name == tag and (kind is None or kind in (attrs.get("class") or ""))
        ]


def full_report(text: str) -> Report:
    picture = Image.new("RGB", (96, 64), (200, 30, 30))
    report = Report(text, text).text(text).heading(text).figures({text: 0.5, "said": text})
    report.table(text, [text, "n"], [[text, 3], [text, None]])
    report.line_chart(text, {text: [(0, 1), (1, 2)], text + "b": [(0, 2)]}, x=text, y=text)
    report.bar_chart(text, [Bar(text, 0.5, 0.4, 0.6, text), Bar(text, 0.2, 0.1, 0.3, text + "b")], y=text)
    report.histogram(text, [1, 2, 2, 3], x=text)
    cards = [
        Card(picture, [text], [Box(1, 2, 30, 20, text)], "good", {text: text}),
        Card(None, [text], tags={text: "b"}),
    ]
    return report.gallery(text, cards)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60))
def test_whatever_the_text_it_stays_text(text: str) -> None:
    page = Page(full_report(text).html())
    assert {tag for tag, _ in page.tags} <= OURS
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_hostile_text_is_shown_and_not_run() -> None:
    html = full_report(HOSTILE).html()
    page = Page(html)
    assert not page.of("script") and len(page.of("style")) == 2  # ours, and the gallery's filter
    assert [attrs["src"] for attrs in page.of("img") if not str(attrs["src"]).startswith("data:image/")] == []
    assert "".join(page.text).count("{{7*7}}") > 10
    assert "49" not in Page(Report("{{7*7}}").html()).text


def test_the_page_needs_nothing_from_outside() -> None:
    html = full_report("x").html()
    page = Page(html)
    policy = next(attrs["content"] for attrs in page.of("meta") if "http-equiv" in attrs)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert "http" not in html.replace("http-equiv", "")
    allowed = Page(Report("x").raw("", "<b>y</b>", scripts=True).html())
    assert any("script-src" in str(attrs.get("content")) for attrs in allowed.of("meta"))


def test_bars_carry_interval_and_tooltip() -> None:
    bars = [
        Bar("count", 0.8, 0.7, 0.9, "tuned"),
        Bar("count", 0.3, 0.2, 0.4, "blank"),
        Bar("size", 0.9, series="tuned"),
    ]
    page = Page(Report("r").bar_chart("by kind", bars, y="accuracy").html())
    whiskers = page.of("line", "whisker")
    assert len(whiskers) == 2 * 3  # two bars with intervals, a line and two caps each
    span = [float(str(whiskers[0][key])) for key in ("x1", "x2")]
    rects = [(float(str(a["x"])), float(str(a["width"]))) for a in page.of("rect")]
    scale = (rects[2][1]) / 0.9  # pixels for an accuracy of 1
    assert rects[0][1] / scale == pytest.approx(0.8, abs=0.01)
    assert [(x - rects[0][0]) / scale for x in span] == pytest.approx([0.7, 0.9], abs=0.01)
    text = "".join(page.text)
    assert "count, tuned\naccuracy 0.8\nfrom 0.7 to 0.9" in text


def test_a_line_breaks_where_there_is_no_number_and_keeps_a_spike() -> None:
    points = [(float(i), 1.0) for i in range(5000)]
    points[2500] = (2500.0, 9.0)
    page = Page(Report("r").line_chart("loss", {"loss": points}, x="step", y="loss").html())
    [line] = page.of("polyline")
    drawn = [tuple(map(float, pair.split(","))) for pair in str(line["points"]).split()]
    assert len(drawn) <= MOST_POINTS
    assert sum(y < 100 for _, y in drawn) == 1  # the spike; the rest lies at the bottom
    holes = [(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, 1.0), (4.0, 2.0)]
    assert len(Page(Report("r").line_chart("l", {"l": holes}, x="x", y="y").html()).of("polyline")) == 2
    zero = [(0.0, 1.0), (1.0, 2.0), (2.0, 0.0), (3.0, 1.0), (4.0, 2.0)]
    assert len(Page(Report("r").line_chart("l", {"l": zero}, x="x", y="y", log_y=True).html()).of("polyline")) == 2


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, -math.inf]])
def test_nothing_to_draw_says_so(values: list[float]) -> None:
    report = Report("r").histogram("h", values, x="x").line_chart("l", {"l": [(0, v) for v in values]}, x="x", y="y")
    assert report.html().count("no values to draw") == 2
    assert "no values to draw" in Report("r").bar_chart("b", [], y="y").html()
    Report("r").bar_chart("b", [Bar("b", value) for value in values] or [Bar("b", 1)], y="y").html()


def test_a_histogram_counts_every_value() -> None:
    page = Page(Report("r").histogram("lengths", [1, 1, 2, 5, 5, 5], x="tokens").html())
    counts = [int(line.rsplit(": ", 1)[1]) for line in page.text if " to " in line and ": " in line]
    assert sum(counts) == 6 and max(counts) == 3


def test_pictures_are_small_boxes_in_their_own_pixels_and_a_broken_one_is_said() -> None:
    buffer = io.BytesIO()
    Image.effect_noise((1600, 1200), 40).save(buffer, "JPEG")
    cards = [
        Card(buffer.getvalue(), ["q"], [Box(160, 120, 800, 600, "dog")]),
        Card(b"\xff\xd8 torn", ["t"], tone="bad"),
    ]
    html = Report("r").gallery("g", cards).html()
    page = Page(html)
    assert len(page.of("img")) == 1 and len(html) < 100_000
    assert [attrs["viewbox"] for attrs in page.of("svg")] == ["0 0 1600 1200"]
    assert page.of("rect")[0]["x"] == "160.0"
    assert "not readable: UnidentifiedImageError" in html


def test_a_table_row_must_fit_its_columns() -> None:
    with pytest.raises(ValueError, match="2 cells for 1 columns"):
        Report("r").table("t", ["a"], [["x", 1]])


ANY = st.floats() | st.none() | st.integers() | st.sampled_from([1.7e308, -1.7e308, 5e-324, 10**400, -(10**400)])
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(FINITE, FINITE)
@example(-9007199254.757812, -9007199254.757811)
@example(0.3, 0.30000000000000004)
@example(1e17, 1e17 + 16)
@example(5e-324, 1e-323)
@example(-1.7e308, 1.7e308)
def test_ticks_are_round_rise_and_enclose(a: float, b: float) -> None:
    low, high = sorted((a, b))
    values = ticks(low, high)
    assert 2 <= len(values) <= 14
    assert all(left < right for left, right in pairwise(values))
    inside = max(-1e300, min(1e300, low)), max(-1e300, min(1e300, high))
    assert values[0] <= inside[0] and values[-1] >= inside[1]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.3, 0.7, [0.3, 0.4, 0.5, 0.6, 0.7]),
        (-3, 12, [-5, 0, 5, 10, 15]),
        (1.2e-7, 3.1e-7, [1e-7, 1.5e-7, 2e-7, 2.5e-7, 3e-7, 3.5e-7]),
        (120, 4700, [0, 1000, 2000, 3000, 4000, 5000]),
        (7, 7, [6, 8, 10, 12, 14]),
    ],
)
def test_ticks_a_person_would_choose(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


@given(st.floats(5e-324, 1.7e308), st.floats(5e-324, 1.7e308))
@example(0.00099999999999999, 0.00099999999999999)
@example(5e-324, 5e-324)
@example(1.7e308, 1.7e308)
def test_log_ticks_rise_and_enclose(a: float, b: float) -> None:
    low, high = sorted(max(1e-300, min(1e300, value)) for value in (a, b))
    values = log_ticks(min(a, b), max(a, b))
    assert 2 <= len(values) <= 14
    assert all(left < right for left, right in pairwise(values))
    assert values[0] <= low and values[-1] >= high


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(ANY.filter(lambda x: x is not None), ANY), max_size=8), st.booleans())
@example([(0, 0.3), (1, 0.30000000000000004)], False)
@example([(1e17, 1.0), (1e17, 2.0)], False)
def test_a_report_never_fails_for_a_number_and_draws_inside_its_frame(points: list[Any], log_y: bool) -> None:
    values = [value for _, value in points]
    report = Report("r").figures({"first": values[0] if values and values[0] is not None else 0.0})
    report.line_chart("l", {"l": points}, x="x", y="y", log_y=log_y).histogram("h", values, x="x")
    report.bar_chart("b", [Bar(f"b{k}", value, value, value) for k, value in enumerate(values)], y="y")
    report.table("t", ["v"], [[value] for value in values])
    page = Page(report.html())
    for line in page.of("polyline"):
        for x, y in (map(float, pair.split(",")) for pair in str(line["points"]).split()):
            assert 0 <= x <= 721 and 0 <= y <= 301
    for mark in [*page.of("rect"), *page.of("circle"), *page.of("line")]:
        assert not re.search("nan|inf", " ".join(str(value) for key, value in mark.items() if key != "class"))


def test_numbers_are_readable() -> None:
    shown = [readable(value) for value in (0.83333, 12345.6, 3.0, 1.2e-7, math.nan, "as is", 1234567)]
    assert shown == ["0.8333", "12,346", "3", "1.2e-07", "nan", "as is", "1,234,567"]
    assert [readable(value) for value in (1.7e308, 10**400, None, True)] == ["1.7e+308", "1e+300", "–", "yes"]


@pytest.mark.slow
@needs_chromium
def test_a_real_browser_draws_it_runs_nothing_and_filters(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    red, blue = Image.new("RGB", (96, 96), (250, 0, 0)), Image.new("RGB", (96, 96), (0, 0, 250))
    report = full_report(HOSTILE)
    report.gallery("g", [Card(red, ["r"], tags={"kind": "red"}), Card(blue, ["b"], tags={"kind": "blue"})])
    html = report.html()
    page.write_text(html)

    def colours(path: Path) -> set[tuple[int, ...]]:
        found = Image.open(path).convert("RGB").resize((550, 2000), Image.Resampling.NEAREST).getcolors(10**7)
        assert found is not None
        return {colour for count, colour in found if count > 50 and isinstance(colour, tuple)}

    seen = visit(page, tmp_path)
    [title] = re.findall("<title>(.*?)</title>", seen.dom.partition("<body>")[0], re.DOTALL)
    assert unescape(title) == HOSTILE  # a script that ran would have changed it
    assert seen.console == [] and seen.requests == []
    # Pictures, first colour, page:
    assert {(250, 0, 0), (0, 0, 250), (47, 111, 219), (255, 255, 255)} <= colours(seen.picture)
    start = html.rindex("</style>")  # of the last gallery: choose "red" there
    tail = html[start:].replace(" checked", "").replace('-0"><span>red', '-0" checked><span>red')
    page.write_text(html[:start] + tail)
    chosen = colours(visit(page, tmp_path).picture)
    assert (250, 0, 0) in chosen and (0, 0, 250) not in chosen
    dark = colours(visit(page, tmp_path, dark=True).picture)
    assert (255, 255, 255) not in dark and (21, 24, 28) in dark


@pytest.mark.slow
@needs_chromium
def test_the_browser_tells_what_a_page_says_and_asks_for(tmp_path: Path) -> None:
    """Without this, an empty console and no requests would prove nothing."""
    page = tmp_path / "loud.html"
    page.write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("so loud")</script>')
    seen = visit(page, tmp_path)
    assert len(seen.console) == 1 and "so loud" in seen.console[0]
    assert seen.requests == ["http://127.0.0.1:9/x.png"]
