"""Rows per second and core from JPEG bytes to a batch: ours beside `LlavaProcessor`, in one process.

    python -m benchmarks.data_path                # speed, and equality of pixels and ids
    python -m benchmarks.data_path --memory       # memory of the loader over 100,000 rows

Three ways do the same work on the same rows, in turn, one thread, CPU seconds of this process:
  processor   PIL opens the file, `LlavaProcessor(text, images)` makes ids and pixels, row by row, not packed;
  ours        `LazySupervisedDataset` and `Collator`: ids, labels and the same pixels, packed;
  device      the same, but the images stay the bytes they decode to: padding, resizing and normalisation are the
              device's work (`llava.data.device_preprocess`), which is timed apart and not counted as the host's.
Before anything is timed, pixels and ids of the first two are compared for equality, those of the third against the
stated tolerance. Published settings: 336 pixels, padded to a square, 576 visual tokens, template v1.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from llava.config import TrainRecipe
from llava.data.batch_plan import BatchPlan
from llava.data.batches import BatchLoader, Collator
from llava.data.dataset import Example, LazySupervisedDataset
from llava.data.device_preprocess import TOLERANCE, DevicePreprocessor
from llava.data.images import ImageSource
from llava.data.labels import RowEncoder
from llava.data.preprocess import Preprocessor
from llava.data.records import Record, RecordList, Turn
from llava.data.templates import get_template, to_messages

TOKENIZER = Path(__file__).resolve().parent.parent / "demo" / "base" / "llama"
QUESTIONS = ("What is the man holding?", "How many of them are there, and where do they stand?", "Describe the scene.")
ANSWER = "There are two people in the picture, one of them to the left of a red bus and the other behind it. "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=0, help="rows a round (speed: 96, memory: 100,000)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--tokenizer", default=str(TOKENIZER), help="directory of a fast tokenizer")
    parser.add_argument("--memory", action="store_true", help="memory over many rows instead of speed")
    parser.add_argument("--json", default="", help="write the figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="llava-data-path-") as folder:
        figures = measure_memory(arguments, folder) if arguments.memory else measure_speed(arguments, folder)
    figures["machine"] = machine()
    for name, value in figures.items():
        print(f"{name:<40} {value}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n")


def measure_speed(arguments: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Median CPU milliseconds a row of the three ways."""
    rows = arguments.rows or 96
    records = write_rows(folder, rows, arguments.width, arguments.height)
    processor = make_processor(arguments.tokenizer, side=336, patch=14)
    encoder = RowEncoder(get_template("v1"), processor.tokenizer, max_length=2048)
    preprocessor = Preprocessor.from_processor(processor)
    dataset = LazySupervisedDataset(records, encoder, ImageSource(folder), preprocessor)
    collate = Collator(encoder.pad_id, preprocessor.image_size, packed=True)
    visual_tokens = preprocessor.constant_visual_tokens or 0
    device = DevicePreprocessor(preprocessor.settings)

    def by_processor() -> list[Any]:
        out = []
        for record in records:
            text = processor.apply_chat_template(to_messages(record.turns), tokenize=False)
            image = Image.open(Path(folder) / record.images[0])
            out.append(processor(text=text, images=image, return_tensors="np"))
        return out

    def ours() -> list[Any]:
        # Packs of eight rows, as 8,192 tokens hold.
        return [collate([dataset[i] for i in range(at, min(at + 8, rows))], [at]) for at in range(0, rows, 8)]

    nothing = np.zeros((0, 3, preprocessor.image_size, preprocessor.image_size), np.float32)

    def for_device() -> list[Any]:
        packs = []
        for at in range(0, rows, 8):
            examples, pictures = [], []
            for record in records[at : at + 8]:
                image = dataset.images.load(record.images[0])
                encoded = encoder.encode(record, [visual_tokens])
                examples.append(Example(encoded.input_ids, encoded.labels, nothing, record.id))
                pictures.append(np.asarray(image))
            packs.append((collate(examples, [at]), pictures))
        return packs

    compare(by_processor(), ours(), for_device(), device)
    seconds: dict[str, list[float]] = {"processor": [], "ours": [], "device, host part": [], "device, on this CPU": []}
    for _ in range(arguments.rounds):
        seconds["processor"].append(cpu_seconds(by_processor))
        seconds["ours"].append(cpu_seconds(ours))
        seconds["device, host part"].append(cpu_seconds(for_device))
    some = [picture for _, pictures in for_device()[:1] for picture in pictures]
    seconds["device, on this CPU"].append(cpu_seconds(lambda: device(some)) * rows / len(some))
    per_row = {name: statistics.median(values) / rows for name, values in seconds.items()}
    figures: dict[str, Any] = {f"{name}: ms a row": round(1e3 * value, 3) for name, value in per_row.items()}
    figures |= {f"{name}: rows/s and core": round(1 / value, 1) for name, value in per_row.items()}
    figures["ours / processor"] = round(per_row["processor"] / per_row["ours"], 2)
    figures["device / processor"] = round(per_row["processor"] / per_row["device, host part"], 2)
    figures["pixels and ids"] = f"equal to the processor's; device within {TOLERANCE} levels of 255"
    figures["rows"] = f"{rows} JPEGs of {arguments.width}x{arguments.height}, {arguments.rounds} rounds, medians"
    return figures


def compare(theirs: list[Any], packs: list[Any], device_packs: list[Any], device: DevicePreprocessor) -> None:
    """Equality of what is timed: a benchmark of something else would be worth nothing."""
    ids = np.concatenate([out["input_ids"][0] for out in theirs])
    assert np.array_equal(ids, torch.cat([pack.input_ids_BT[0] for pack in packs]).numpy())
    assert np.array_equal(ids, torch.cat([pack.input_ids_BT[0] for pack, _ in device_packs]).numpy())
    pixels = np.concatenate([out["pixel_values"] for out in theirs])
    assert np.array_equal(pixels, torch.cat([pack.pixel_values_ICHW for pack in packs]).numpy())
    std = np.array(device.settings.std)[:, None, None]
    pictures = [picture for _, part in device_packs[:2] for picture in part]
    apart = np.abs(device(pictures).numpy() - pixels[: len(pictures)]) * std * 255
    assert apart.max() <= TOLERANCE + 1e-3, apart.max()


def measure_memory(arguments: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Resident memory after each tenth of one epoch."""
    rows = arguments.rows or 100_000
    pictures = write_rows(folder, 64, 96, 72)
    base = list(pictures)
    records = RecordList(Record(str(i), base[i % 64].images, base[i % 64].turns, i) for i in range(rows))
    processor = make_processor(arguments.tokenizer, side=56, patch=14)
    encoder = RowEncoder(get_template("v1"), processor.tokenizer, max_length=2048)
    dataset = LazySupervisedDataset(records, encoder, ImageSource(folder), Preprocessor.from_processor(processor))
    recipe = TrainRecipe(learning_rate=1e-3, global_batch_size=128, packing=True, pack_tokens=8192, pack_images=64)
    plan = BatchPlan(dataset.lengths, dataset.supervised, dataset.image_counts, recipe)
    began, resident = time.monotonic(), []
    for step in BatchLoader(dataset, plan, workers=2):
        if step.step % max(1, plan.total_steps // 10) == 0:
            resident.append(resident_mb())
    figures: dict[str, Any] = {f"resident MB at {10 * tenth} %": round(mb, 1) for tenth, mb in enumerate(resident)}
    figures["growth after the first tenth, MB"] = round(resident[-1] - resident[1], 1)
    figures["rows/s, 2 threads"] = round(rows / (time.monotonic() - began), 1)
    figures["rows"] = rows
    return figures


def write_rows(folder: str, rows: int, width: int, height: int) -> RecordList:
    """JPEGs with a photograph's spectrum, 160 KB each at 640x480 as COCO's are, and one conversation each."""
    records = []
    for index in range(rows):
        name = f"{index:06d}.jpg"
        (Path(folder) / name).write_bytes(photograph(width, height, index))
        turns: list[Turn] = []
        for number in range(1 + index % 3):
            question = ("<image>\n" if number == 0 else "") + QUESTIONS[(index + number) % 3]
            turns += [Turn("human", question), Turn("gpt", (ANSWER * (1 + (index + number) % 3)).strip())]
        records.append(Record(str(index), (name,), tuple(turns), index))
    return RecordList(records)


def photograph(width: int, height: int, seed: int) -> bytes:
    """Noise whose power falls with the square of the frequency, as in natural images."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(random.normal(size=(3, height, width))) / frequency
    pixels: npt.NDArray[np.float64] = np.fft.irfft2(spectrum, s=(height, width))
    pixels = 128 + 48 * pixels / pixels.std()
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)).save(buffer, "JPEG", quality=86)
    return buffer.getvalue()


def make_processor(tokenizer: str, *, side: int, patch: int) -> Any:
    """A `LlavaProcessor` as a v1.5 checkpoint of this side and patch is saved with."""
    from transformers import AutoTokenizer, LlavaProcessor
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    fast = AutoTokenizer.from_pretrained(tokenizer)
    fast.add_special_tokens({"extra_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    return LlavaProcessor(
        image_processor=LlavaImageProcessorPil(
            do_pad=True, size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        ),
        tokenizer=fast,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=get_template("v1", fast).chat_template(),
    )


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def resident_mb() -> float:
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def machine() -> str:
    import PIL
    import tokenizers
    import transformers

    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    versions = f"Pillow {PIL.__version__}, tokenizers {tokenizers.__version__}, transformers {transformers.__version__}"
    return f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}, torch {torch.__version__}"


if __name__ == "__main__":
    main()
