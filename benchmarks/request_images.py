"""How fast images become requests: read, hashed, scaled, encoded, and written as the body's JSON.

    python -m benchmarks.request_images

Photos of four kinds are made up (soft gradients with noise, JPEG quality 90, about as large as real ones): COCO's size
as it stands, the same with EXIF (so that it is written again), and larger ones that are scaled to 1,024 pixels. As many
threads as a run has do the work; the figure to keep is 200 a second on 2 cores with COCO's photos.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.expansion import machine
from llava.data.images import ImageSource
from llava.expansion.recipe.attaching import Attacher, ImageForm
from llava.expansion.recipe.kinds import load_expansion_recipe
from llava.expansion.recipe.requests import Request, requests_of
from llava.expansion.sources.corpus import AnnotatedImage
from llava.expansion.sources.image_files import ImageFacts, look_at

PHOTOS = {
    "640 x 480": (640, 480, False),
    "640 x 480, EXIF": (640, 480, True),
    "1600 x 1200": (1600, 1200, False),
    "4032 x 3024": (4032, 3024, True),
}
_DISTINCT = 16


def synthesise(folder: Path, width: int, height: int, exif: bool) -> list[str]:
    """Write the photos; their names."""
    rng = np.random.default_rng(0)
    names = []
    for number in range(_DISTINCT):
        coarse_hwc = rng.integers(0, 256, (height // 32, width // 32, 3), dtype=np.uint8)
        soft = Image.fromarray(coarse_hwc).resize((width, height), Image.Resampling.BICUBIC)
        noise_hwc = rng.normal(0, 6, (height, width, 1))
        pixels_hwc = np.clip(np.asarray(soft, dtype=np.float32) + noise_hwc, 0, 255).astype(np.uint8)
        marks = Image.Exif()
        if exif:
            marks[0x010F] = "a camera"
        names.append(f"{number}.jpg")
        Image.fromarray(pixels_hwc).save(folder / names[-1], quality=90, exif=marks if exif else b"")
    return names


def measure(folder: Path, names: list[str], seconds: float, threads: int) -> dict[str, Any]:
    """Requests a second, and what one weighs."""
    source = ImageSource(str(folder))
    start = time.perf_counter()
    looked = {path: facts for path, facts in look_at(source, names) if isinstance(facts, ImageFacts)}
    look = len(looked) / (time.perf_counter() - start)
    kind = load_expansion_recipe("coco").kind("detail-vision")
    images = [AnnotatedImage(name, None, 0, 0, ("A thing.",)) for name in names]
    requests = list(requests_of(kind, "model", images, 0, attacher=Attacher(source, looked, ImageForm())))

    def one(request: Request) -> int:
        return len(json.dumps(request.body()))

    done = size = 0
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, requests))
        start, cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - start < seconds:
            size += sum(pool.map(one, requests * 4))
            done += 4 * len(requests)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "requests_per_s": round(done / wall),
        "ms_of_cpu": round(1e3 * cpu / done, 2),
        "kib_sent": round(size / done / 1024),
        "kib_file": round(sum((folder / name).stat().st_size for name in names) / len(names) / 1024),
        "looked_at_per_s": round(look),
    }


def main() -> None:
    """Measure all, print, and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=min(32, (os.cpu_count() or 1) + 4))  # as asyncio.to_thread has
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/request_images.json"))
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "photos": {}}
    for name, (width, height, exif) in PHOTOS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            names = synthesise(folder, width, height, exif)
            results["photos"][name] = found = measure(folder, names, options.seconds, options.threads)
        print(f"{name:18} {found}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
