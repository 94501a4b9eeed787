"""The explorer in a real browser: every sample is reachable, filters count right, text stays text."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.report import Answer, Report, Sample, thumbnail
from tests.browser import needs_chromium, visit

COUNT = 20_000
DRIVE = """<script>
const steps = %s, said = [];
const box = (name) => document.querySelector(`[aria-label="${name}"]`);
const shown = () => ({count: document.querySelector(".pager span").textContent,
  cards: document.querySelectorAll(".explorer .card").length,
  ids: [...document.querySelectorAll(".explorer .foot a")].slice(0, 3).map((a) => a.textContent)});
(async () => {
  for (const [name, value] of steps) {
    const node = box(name);
    if (name === "hash") location.hash = value;
    else if (name === "next") document.querySelectorAll(".pager button")[1].click();
    else {
      const list = node.tagName === "SELECT";
      node.value = list ? [...node.options].find((o) => o.textContent === value).value : value;
      node.dispatchEvent(new Event(list ? "change" : "input"));
    }
    await new Promise((done) => setTimeout(done, 250));
    said.push(shown());
  }
  const out = document.createElement("pre");
  out.id = "said";
  out.textContent = JSON.stringify(said);
  document.body.append(out);
})();
</script></body>"""


def sample(k: int, **changed: Any) -> Sample:
    """Every third answer is wrong; the blind one is right on every fifth; profiles differ on every hundredth."""
    score = float(k % 3 != 0)
    ours = Answer(f"answer {k}", {"llava-1.5": score, "robust": 1 - score if k % 100 == 0 else score})
    blank = Answer("x", {"llava-1.5": float(k % 5 == 0), "robust": float(k % 5 == 0)})
    values: dict[str, Any] = {
        "id": f"q{k}", "question": f"What is {k}?", "expected": "yes", "image": f"{k % 50}.jpg",
        "tags": {"benchmark": "pope" if k % 2 else "gqa", "kind": f"kind {k % 4}"},
        "answers": {"tuned": ours, "blank": blank},
    }  # fmt: skip
    return Sample(**(values | changed))


def page_of(samples: list[Sample], folder: Path, steps: list[tuple[str, str]]) -> list[dict[str, Any]]:
    thumbnails = {f"{k}.jpg": thumbnail(Image.new("RGB", (300, 200), (k, 90, 200))) for k in range(50)}
    report = Report("r").explorer("Every question", samples, ["tuned", "blank"], ["llava-1.5", "robust"], thumbnails)
    folder.mkdir(exist_ok=True)
    page = folder / "page.html"
    page.write_text(report.html().replace("</body>", DRIVE % json.dumps(steps)))
    seen = visit(page, folder, height=900, budget_ms=8000)
    assert seen.console == [] and seen.requests == []
    found = re.search(r'<pre id="said">(.*?)</pre>', seen.dom, re.DOTALL)
    assert found, seen.dom[:500]
    return list(json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")))


@needs_chromium
@pytest.mark.slow
def test_twenty_thousand_samples_are_searched_and_filtered(tmp_path: Path) -> None:
    numbers = range(COUNT)
    steps = [
        ("benchmark", "pope"), ("result of tuned", "wrong"), ("kind", "kind 1"), ("next", ""),
        ("contenders", "tuned worse than blank"), ("result of tuned", "all"), ("benchmark", "all"), ("kind", "all"),
        ("contenders", "all"), ("result of tuned", "profiles differ"), ("profile", "robust"),
        ("result of tuned", "wrong"),
        ("result of tuned", "all"), ("search", "ANSWER 19999"), ("hash", "id=q12345"),
    ]  # fmt: skip
    seen = page_of([sample(k) for k in numbers], tmp_path, steps)

    def total(step: int) -> int:
        return int(str(seen[step]["count"]).split(" of ")[1].split(" ")[0])

    wrong = [k for k in numbers if k % 3 == 0]
    assert total(0) == COUNT // 2 and seen[0]["cards"] == 48
    assert total(1) == sum(k % 2 for k in wrong)
    chosen = [k for k in wrong if k % 4 == 1]
    assert total(2) == len(chosen) and seen[2]["ids"] == [f"q{k}" for k in chosen[:3]]
    assert seen[3]["ids"] == [f"q{k}" for k in chosen[48:51]] and str(seen[3]["count"]).startswith("49 to 96 of")
    assert total(4) == total(5) == sum(k % 5 == 0 for k in chosen)
    assert total(6) == sum(k % 3 == 0 and k % 5 == 0 and k % 4 == 1 for k in numbers)
    assert total(7) == sum(k % 3 == 0 and k % 5 == 0 for k in numbers)
    assert total(8) == COUNT
    assert total(9) == COUNT // 100
    assert total(11) == sum((k % 3 == 0) != (k % 100 == 0) for k in numbers)
    assert seen[13]["ids"] == ["q19999"] and seen[14]["ids"] == ["q12345"]


HOSTILE = "</script><script>document.title='pwned'</script><!--<img src=x onerror=alert(1)>"


@pytest.mark.slow
@needs_chromium
def test_text_from_outside_stays_text_and_control_characters_are_seen(tmp_path: Path) -> None:
    odd = "a\x00b\x1b[31mc\u202ed\u2028e"
    samples = [
        sample(0, id=HOSTILE, question=HOSTILE, expected=odd, image=HOSTILE, tags={"kind": HOSTILE}),
        sample(1, answers={"tuned": Answer(odd)}),  # not scored, and nobody else answered
    ]
    seen = page_of(samples, tmp_path, [("search", "\\u202e"), ("search", ""), ("result of tuned", "without a score")])
    assert [part["cards"] for part in seen] == [2, 2, 1] and seen[1]["ids"] == [HOSTILE, "q1"]
    page = (tmp_path / "page.html").read_text()
    assert "pwned'</script>" not in page and "\x00" not in page and "\x1b" not in page and "\u202e" not in page


def test_no_samples_and_no_thumbnails() -> None:
    assert "nothing to show" in Report("r").explorer("e", [], [], [], {}).html()
    html = Report("r").explorer("e", [sample(3)], ["tuned"], ["llava-1.5"], {}).html()
    assert "3.jpg" in html and "blank" not in html.split("explorer-data")[1].split("</script>")[0]
    policy = unescape(html.split("Content-Security-Policy")[1].split(">")[0])
    assert "script-src 'unsafe-inline'" in policy and "default-src 'none'" in policy
