"""Time and memory of the check of all rows before a run trains, at the size of LLaVA's own files.

    python -m benchmarks.row_check                       # 558,128 rows of stage 1, an image each
    python -m benchmarks.row_check --rows 1000000 --json benchmarks/results/row_check.json

Writes the rows (the form of `blip_laion_cc_sbu_558k.json`: 8 to 40 words a caption) and as many images on the local
disk (each a name of its own of one of 64 JPEGs: every name is opened, the bytes stay in the page cache), reads and
checks them as a training stage does (headers of all images, lengths of all rows), keeps the verdict and finds it again
as a retry does. All in one process; ranks share the check and divide its time.

Resident memory is sampled twenty times a second.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.data_path import TOKENIZER, machine, make_processor, photograph, resident_mb
from llava.data.check import check_rows
from llava.data.images import ImageSource
from llava.data.labels import RowEncoder
from llava.data.preprocess import Preprocessor
from llava.data.records import read_records
from llava.data.templates import get_template
from llava.training import row_verdicts

PUBLISHED = 558_128
A_FOLDER = 1_000
WORDS = ("a", "the", "small", "large", "red", "blue", "circle", "square", "left", "right", "of", "with", "two", "three")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=PUBLISHED)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--note", default="", help="kept beside the figures: 'loaded machine'")
    parser.add_argument("--json", default="", help="write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llava-row-check-") as folder:
        figures = measure(Path(folder), arguments.rows, arguments.threads)
    figures |= {"machine": machine(), "note": arguments.note}
    for name, value in figures.items():
        print(f"{name:<40} {value}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n")


def measure(folder: Path, rows: int, threads: int) -> dict[str, Any]:
    """Seconds and resident MB of each step."""
    data = folder / "rows.json"
    write(folder, data, rows)
    processor = make_processor(str(TOKENIZER), side=336, patch=14)
    encoder = RowEncoder(get_template("plain"), processor.tokenizer, max_length=2048)
    preprocessor = Preprocessor.from_processor(processor)
    figures: dict[str, Any] = {
        "rows": rows,
        "threads": threads,
        "file, MB": round(data.stat().st_size / 2**20, 1),
        "resident MB before": round(resident_mb(), 1),
    }
    with timed("reading rows", figures):
        file = read_records(str(data))
    images = ImageSource(str(folder / "images"))
    marks: dict[str, float] = {}

    def progress(what: str, done: int, total: int) -> None:
        tenth = 10 * done // total
        marks.setdefault(f"resident MB, {what} {10 * tenth} %", round(resident_mb(), 1))

    with timed("checking", figures):
        result = check_rows(file, images, encoder, preprocessor, threads=threads, progress=progress)
    if len(result.good) != rows:
        raise SystemExit(f"{rows - len(result.good)} rows were found unusable: {result.problems[:1]}")
    figures["rows/s, checking"] = round(rows / figures["checking: seconds"])
    figures |= {name: value for name, value in marks.items() if name.endswith((" 10 %", " 50 %", " 100 %"))}
    key = row_verdicts.key(file, str(folder / "images"), encoder, preprocessor)
    row_verdicts.keep(str(folder / "kept"), key, file, result)
    del result
    with timed("recalling, as a retry does", figures):
        if row_verdicts.recall([str(folder / "kept")], key, file) is None:
            raise SystemExit("the verdict that was kept is not found again")
    return figures


def write(folder: Path, data: Path, rows: int) -> None:
    """The rows and their images."""
    draw = random.Random(0)
    whole = folder / "whole"
    whole.mkdir()
    for number in range(64):
        (whole / f"{number}.jpg").write_bytes(photograph(336, 252, number))
    with data.open("w") as out:
        for number in range(rows):
            name = f"{number // A_FOLDER:05d}/{number:09d}.jpg"
            path = folder / "images" / name
            if number % A_FOLDER == 0:
                path.parent.mkdir(parents=True)
                # A file bears some 65,000 names: another copy for each of these folders.
                for source in whole.iterdir():
                    (path.parent / source.name).write_bytes(source.read_bytes())
            os.link(path.parent / f"{number % 64}.jpg", path)
            caption = " ".join(draw.choices(WORDS, k=draw.randint(8, 40)))
            turns = [{"from": "human", "value": "Describe it.\n<image>"}, {"from": "gpt", "value": caption}]
            row = {"id": f"{number:09d}", "image": name, "conversations": turns}
            out.write(("[" if number == 0 else ",\n") + json.dumps(row))
        out.write("]\n")


@contextmanager
def timed(step: str, figures: dict[str, Any]) -> Iterator[None]:
    """Adds a step's seconds (wall and of this process's CPU) and the most memory that was resident meanwhile."""
    most, over = resident_mb(), threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.05):
            most = max(most, resident_mb())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began, cpu = time.monotonic(), time.process_time()
    try:
        yield
    finally:
        figures[f"{step}: seconds"] = round(time.monotonic() - began, 1)
        figures[f"{step}: CPU seconds"] = round(time.process_time() - cpu, 1)
        over.set()
        watcher.join()
        figures[f"{step}: most resident MB"] = round(most, 1)


if __name__ == "__main__":
    main()
