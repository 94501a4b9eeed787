"""Throughput of the expansion's own side: `python -m benchmarks.expansion`.

1. plan: annotations of COCO train2017's size and form (118,287 images, 591k captions, 860k boxes with outlines),
   synthesised, read and planned for all three kinds. Target: under 60 s of one core and under 2 GiB.
2. replies: an instant teacher through parse, gates, ledger (fsync'd) and rows. Target: at least 500 replies a second
   on 2 cores.
3. flatness: the same per reply for growing jobs. Target: the largest costs about what the smallest does.

Times are CPU seconds of a process of its own (a machine shared with others has no honest wall clock), wall time is
beside them. Prints a table; results go to benchmarks/results/expansion.json, with machine, load and versions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llava.expansion.asking.budget import Budget
from llava.expansion.asking.dispatch import Dispatcher
from llava.expansion.asking.ledger import Ledger
from llava.expansion.asking.limits import Limits
from llava.expansion.asking.prices import FREE
from llava.expansion.asking.token_counts import TokenCounter
from llava.expansion.estimate import make_plan
from llava.expansion.gates import Panel
from llava.expansion.gates.form_check import form_check, gate_check
from llava.expansion.job import Job, open_job
from llava.expansion.recipe.requests import Request
from llava.expansion.rows.building import RowOptions, build_rows
from llava.expansion.rows.sampling import Sampler
from llava.expansion.teachers.base import Reply, Usage
from llava.expansion.teachers.words import COCO

IMAGES, CAPTIONS, BOXES = 118_287, 591_753, 860_001
_SUBJECTS = ("man", "woman", "dog", "cat", "bus", "train", "horse", "child", "bird", "boat", "truck", "giraffe")
_DOING = ("standing next to", "sitting on", "riding", "walking past", "looking at", "in front of", "holding", "behind")
_WORDS = tuple(
    f"{a}{b}"
    for a in ("sun", "moon", "stone", "wind", "rain", "snow")
    for b in ("light", "side", "fall", "lit", "less")
)
_THINGS = (
    "a wooden bench",
    "a red car",
    "a kitchen table",
    "the beach",
    "a green field",
    "a tall building",
    "a bicycle",
)


class InstantTeacher:
    """Answers at once with a plausible reply of the kind's form."""

    model = "instant"

    async def ask(self, request: Request) -> Reply:
        """No waiting: what remains is our own work."""
        noun = request.context.split("\n", 1)[0].rstrip(" .")
        tag = request.id[:6]
        if request.kind == "detail":
            # Random words, so that the index of near duplicates fills as with real, different texts.
            rng = random.Random(request.id)
            text = f"{noun}. " + " ".join(rng.choice(_WORDS) for _ in range(60)) + "."
        else:
            turns = [f"Question:\nWhat can be seen at {tag}?\n===\nAnswer:\n{noun}."]
            turns += [f"Question:\nIs part {k} of it calm?\n===\nAnswer:\n{'yes' if k % 2 else 'no'}" for k in range(4)]
            text = "\n===\n".join(turns)
        return Reply(text, "stop", self.model, Usage(len(request.context) // 4 + 900, 900, len(text) // 4))

    async def renew(self) -> None:
        """It has no connections."""

    async def close(self) -> None:
        """Nothing to close."""


def synthesise(folder: Path, images: int = IMAGES, captions: int = CAPTIONS, boxes: int = BOXES) -> None:
    """Write both annotation files in COCO's own form and key order."""
    rng = random.Random(0)
    ids = [k * 4 + 9 for k in range(images)]
    sizes = [rng.choice(((640, 480), (480, 640), (640, 427), (500, 375))) for _ in ids]
    listed = [
        {
            "license": 3, "file_name": f"{id_:012d}.jpg", "coco_url": f"http://images.cocodataset.org/train2017/{id_:012d}.jpg",
            "height": height, "width": width, "date_captured": "2013-11-14 11:18:45",
            "flickr_url": "http://farm9.staticflickr.com/8186/8119368305_4e622c8349_z.jpg", "id": id_,
        }
        for id_, (width, height) in zip(ids, sizes, strict=True)
    ]  # fmt: skip

    def caption_rows() -> Iterator[dict[str, Any]]:
        for k in range(captions):
            # Two words of their own, because COCO's captions hardly ever recur: no cache may profit from ours.
            own = f"{rng.choice(_WORDS)} {rng.choice(_WORDS)}"
            scene = f"{rng.choice(_SUBJECTS)} {rng.choice(_DOING)} {rng.choice(_THINGS)} near {rng.choice(_THINGS)}"
            text = f"A {scene}, {own}."
            yield {"image_id": ids[k % images], "id": k + 1, "caption": text}

    def box_rows() -> Iterator[dict[str, Any]]:
        for k in range(boxes):
            width, height = sizes[k % images]
            w, h = round(rng.uniform(8, width / 2), 2), round(rng.uniform(8, height / 2), 2)
            x, y = round(rng.uniform(0, width - w), 2), round(rng.uniform(0, height - h), 2)
            outline = [round(x + (j * 37 % 100) / 100 * w, 2) for j in range(48)]
            yield {
                "segmentation": [outline], "area": round(w * h / 2, 4), "iscrowd": 0, "image_id": ids[k % images],
                "bbox": [x, y, w, h], "category_id": k % 80 + 1, "id": 900100000 + k,
            }  # fmt: skip

    categories = [{"supercategory": "thing", "id": k + 1, "name": name} for k, name in enumerate(COCO)]
    _write(folder / "captions_train2017.json", listed, caption_rows(), None)
    _write(folder / "instances_train2017.json", listed, box_rows(), categories)


def _write(path: Path, images: list[Any], rows: Iterator[Any], categories: list[Any] | None) -> None:
    with path.open("w") as file:
        file.write('{"info": {"year": 2017}, "licenses": [], "images": ' + json.dumps(images) + ', "annotations": [')
        for index, row in enumerate(rows):
            file.write((", " if index else "") + json.dumps(row))
        file.write("]" + (', "categories": ' + json.dumps(categories) if categories else "") + "}")


def open_synthetic(folder: Path, limit: int = 0) -> Job:
    """All three kinds."""
    return open_job(
        annotations_uri=str(folder), split="train", image_prefix="train2017", kinds="conversation,detail,reasoning",
        expansion_recipe="coco", model="instant", limit=limit, seed=0, blocklist_uri="", max_bad_rows=0,
    )  # fmt: skip


def measure_plan(folder: Path) -> dict[str, Any]:
    """Read and plan the whole; run in a process of its own, for its memory."""
    start, cpu = time.perf_counter(), time.process_time()
    job = open_synthetic(folder)
    read = time.process_time() - cpu
    plan = make_plan(job, TokenCounter(), None)
    return {
        "images": plan.images,
        "captions": plan.captions,
        "boxes": plan.boxes,
        "requests": sum(kind.requests for kind in plan.kinds),
        "annotation_megabytes": round(sum(path.stat().st_size for path in folder.glob("*.json")) / 1e6, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "cpu_read_s": round(read, 1),
        "wall_s": round(time.perf_counter() - start, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def measure_replies(folder: Path, replies: int) -> dict[str, Any]:
    """An instant teacher for so many replies, and the rows built from them."""
    job = open_synthetic(folder, -(-replies // 3))
    with tempfile.TemporaryDirectory() as out:
        ledger = Ledger(f"{out}/ledger")
        start, cpu = time.perf_counter(), time.process_time()
        dispatcher = Dispatcher(
            InstantTeacher(),
            ledger,
            unusable=form_check(job.recipe),
            judged=gate_check(job.recipe, job.corpus.categories, set()),
            budget=Budget(FREE, 0, 0),
            limits=Limits(concurrency=64),
        )
        outcome = asyncio.run(dispatcher.run(job.requests()))
        asked = time.process_time() - cpu
        panel = Panel(job.recipe, job.corpus.categories, blocked=frozenset(), off=set())
        built = build_rows(
            job, ledger, panel, Sampler(12), f"{out}/instruct.json",
            options=RowOptions(), unusable=form_check(job.recipe), progress=lambda done, dropped: None,
        )  # fmt: skip
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        ledger.close()
        return {
            "replies": outcome.answered,
            "kept": sum(built.kept.values()),
            "dropped": dict(panel.hard),
            "cpu_s": round(cpu, 2),
            "cpu_dispatch_s": round(asked, 2),
            "wall_s": round(wall, 2),
            "replies_per_s": round(outcome.answered / wall),
            "replies_per_cpu_s": round(outcome.answered / cpu),
        }


def main() -> None:
    """Run all, print, and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replies", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/expansion.json"))
    parser.add_argument("--part", choices=["plan", "replies"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        found = (
            measure_plan(options.folder) if options.part == "plan" else measure_replies(options.folder, options.count)
        )
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        synthesise(folder)
        results: dict[str, Any] = {
            "machine": machine(),
            "plan": _own_process("plan", folder, 0),
            "replies": [_own_process("replies", folder, count) for count in options.replies],
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n")
    print(f"{table(results)}\n\nwritten to {options.out}")


def machine() -> dict[str, Any]:
    """Hardware, its load before anything is measured, and the versions that matter here."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(": ")[2] for line in cpuinfo.splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "pydantic", "rensa", "openai")},
    }


def table(results: dict[str, Any]) -> str:
    """The results as lines for people."""
    about, plan, replies = results["machine"], results["plan"], results["replies"]
    lines = [
        "{cpu}, {cores} cores, {memory_gib} GiB, load {load} at the start; Python {python}, numpy {numpy}, "
        "pydantic {pydantic}, rensa {rensa}, openai {openai}".format(**about),
        "",
        f"plan: {plan['images']:,} images, {plan['captions']:,} captions, {plan['boxes']:,} boxes "
        f"({plan['annotation_megabytes']:.0f} MB), {plan['requests']:,} requests",
        f"      {plan['cpu_s']:.1f} CPU s ({plan['cpu_read_s']:.1f} of them reading), {plan['wall_s']:.1f} s wall, "
        f"{plan['peak_mib']} MiB    (target: 60 s of one core, 2048 MiB)",
        "",
        f"{'replies':>9} {'CPU s':>8} {'ms each':>8} {'asking':>8} {'building':>9} {'wall s':>8} {'replies/s':>10}",
    ]
    for row in replies:
        count = row["replies"]
        asking, building = row["cpu_dispatch_s"], row["cpu_s"] - row["cpu_dispatch_s"]
        lines.append(
            f"{count:>9,} {row['cpu_s']:>8.1f} {1e3 * row['cpu_s'] / count:>8.3f} {1e3 * asking / count:>8.3f} "
            f"{1e3 * building / count:>9.3f} {row['wall_s']:>8.1f} {row['replies_per_s']:>10,}"
        )
    first, last = (row["cpu_s"] / row["replies"] for row in (replies[0], replies[-1]))
    lines.append(f"CPU a reply, {replies[-1]['replies']:,} against {replies[0]['replies']:,}: {last / first:.2f} times")
    lines.append("asking, building: CPU ms a reply; replies/s by the wall clock (target: 500 a second on 2 cores)")
    return "\n".join(lines)


def _own_process(part: str, folder: Path, count: int) -> Any:
    command = [
        sys.executable,
        "-m",
        "benchmarks.expansion",
        "--part",
        part,
        "--folder",
        str(folder),
        "--count",
        str(count),
    ]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
