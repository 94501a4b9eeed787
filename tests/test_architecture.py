"""docs/architecture.md is the truth about the structure: it names every package, and every file it names is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def tracked() -> set[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if listed:
        return set(listed.split("\n"))
    return {str(path.relative_to(ROOT)) for path in (ROOT / "llava").rglob("*.py")}  # a tree without git


def section(title: str) -> str:
    return PAGE.split(f"## {title}", 1)[1].split("\n## ", 1)[0]


def test_every_package_and_folder_is_on_the_map() -> None:
    packages = {str(Path(path).parent) for path in tracked() if path.startswith("llava/") and path.endswith(".py")}
    folders = {path.split("/")[0] for path in tracked() if "/" in path and not path.startswith(".")}
    named = set(re.findall(r"^\| `([^`]+?)/?` \|", section("Every package and folder"), re.MULTILINE))
    assert packages - {"llava"} <= named, "a package is missing from the map"
    assert folders - {"llava"} <= named, "a folder is missing from the map"
    gone = {name for name in named if not (ROOT / name).exists()}
    assert not gone


def test_no_file_of_code_is_longer_than_a_person_reads_at_once() -> None:
    lengths = {name: len((ROOT / name).read_text().splitlines()) for name in tracked() if name.endswith(".py")}
    assert {name: lines for name, lines in lengths.items() if lines > 350} == {}


def test_every_file_of_where_do_i_change_is_there() -> None:
    rows = [line for line in section("Where do I change ...").splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) >= 10
    for row in rows:
        place = ""
        for name in re.findall(r"`([\w./<>-]+)`", row.split("|")[2]):
            if "<" in name or "/" not in name:
                continue
            # A second file may be named from its package on: `asking/limits.py`.
            found = (ROOT / name).exists() or any((ROOT / place / part / name).exists() for part in ("", "..", "../.."))
            assert found, f"{name}, in: {row}"
            place = str(Path(name).parent) if (ROOT / name).exists() else place


def test_every_file_on_the_two_ways_is_there() -> None:
    text = section("The way of one row, from annotation to loss") + section("The way of one reply, from request to row")
    names = set(re.findall(r"`([\w/]+\.py)`", text))
    assert len(names) > 20
    missing = {
        name
        for name in names
        if not any((ROOT / "llava" / place / name).exists() for place in ("", "expansion", "expansion/sources", "data"))
    }
    assert not missing
