"""Write the demo world as COCO ships its pictures: ``python -m demo.world --out DIR``.

``train2017/*.jpg`` and ``val2017/*.jpg``, ``annotations/captions_{train,val}2017.json``,
``annotations/instances_{train,val}2017.json``, and beside them a benchmark of held-out questions,
``annotations/questions_val.jsonl``, answered by the scenes themselves.

The same arguments give the same bytes. What a held-out picture shows (kinds, colours, sizes, cells) is shown by no
training picture.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from demo.captions import five_captions
from demo.questions import QUESTION_KINDS, answers_of, draw_question
from demo.scenes import KINDS, SIDE, Scene, Signature, jpeg_bytes, render, sample_scene

QUESTIONS_PER_KIND: dict[str, int] = {
    "colour": 160,
    "shape": 162,
    "position": 162,
    "count": 120,
    "presence": 120,
    "size": 80,
}
"""Questions of each kind for 300 held-out scenes; other numbers of scenes scale them."""

_SPLITS = {"val": 0, "train": 1}
_LICENSE = {"id": 1, "name": "Apache License 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}


@dataclass(frozen=True)
class Picture:
    """A scene with the number COCO would know its picture by."""

    image_id: int
    scene: Scene

    @property
    def file_name(self) -> str:
        """Twelve digits, as in COCO 2017."""
        return f"{self.image_id:012d}.jpg"


def generator(seed: int, split: str, index: int, purpose: int) -> np.random.Generator:
    """An own stream of random numbers for one purpose of one picture, whatever happens to the others."""
    return np.random.default_rng([seed, _SPLITS[split], index, purpose])


def held_out_scenes(seed: int, count: int) -> list[Scene]:
    """The scenes of the held-out split; no two of them show the same."""
    scenes: list[Scene] = []
    seen: set[Signature] = set()
    for index in range(count):
        scenes.append(_scene_outside(generator(seed, "val", index, 0), seen))
        seen.add(scenes[-1].signature)
    return scenes


def training_scenes(seed: int, count: int, held_out: Sequence[Scene]) -> list[Scene]:
    """The scenes of the training split: none shows what a held-out scene shows."""
    forbidden = {scene.signature for scene in held_out}
    return [_scene_outside(generator(seed, "train", index, 0), forbidden) for index in range(count)]


def _scene_outside(rng: np.random.Generator, forbidden: Collection[Signature]) -> Scene:
    while (scene := sample_scene(rng)).signature in forbidden:
        pass
    return scene


def _header(split: str, pictures: Sequence[Picture]) -> dict[str, Any]:
    return {
        "info": {
            "description": f"Demo world of coloured shapes, {split} split",
            "url": "",
            "version": "1.0",
            "year": 2017,
            "contributor": "llava-pipelines",
            "date_created": "2017/09/01",
        },
        "licenses": [_LICENSE],
        "images": [
            {
                "license": 1,
                "file_name": picture.file_name,
                "coco_url": "",
                "height": SIDE,
                "width": SIDE,
                "date_captured": "2017-09-01 00:00:00",
                "flickr_url": "",
                "id": picture.image_id,
            }
            for picture in pictures
        ],
    }


def captions_document(seed: int, split: str, pictures: Sequence[Picture]) -> dict[str, Any]:
    """The content of ``captions_{split}2017.json``: five captions a picture."""
    annotations: list[dict[str, Any]] = []
    for index, picture in enumerate(pictures):
        for text in five_captions(picture.scene, generator(seed, split, index, 1)):
            annotations.append({"image_id": picture.image_id, "id": len(annotations) + 1, "caption": text})
    return {**_header(split, pictures), "annotations": annotations}


def instances_document(split: str, pictures: Sequence[Picture]) -> dict[str, Any]:
    """The content of ``instances_{split}2017.json``: a box, an outline and a category a shape."""
    annotations: list[dict[str, Any]] = []
    for picture in pictures:
        for shape in picture.scene.shapes:
            annotations.append(
                {
                    "segmentation": [[value for point in shape.outline for value in point]],
                    "area": round(shape.area, 4),
                    "iscrowd": 0,
                    "image_id": picture.image_id,
                    "bbox": [round(value, 2) for value in shape.box],
                    "category_id": KINDS.index(shape.kind) + 1,
                    "id": len(annotations) + 1,
                }
            )
    categories = [{"supercategory": "shape", "id": index + 1, "name": kind} for index, kind in enumerate(KINDS)]
    return {**_header(split, pictures), "annotations": annotations, "categories": categories}


def benchmark_rows(seed: int, pictures: Sequence[Picture]) -> list[dict[str, str]]:
    """Held-out questions, the answers of each kind equally frequent: guessing without the picture is of little use."""
    rng = np.random.default_rng([seed, 2])
    rows: list[dict[str, str]] = []
    for kind in QUESTION_KINDS:
        wanted = round(QUESTIONS_PER_KIND[kind] * len(pictures) / 300)
        asked: set[tuple[int, str]] = set()
        for number in range(wanted):
            answer = answers_of(kind)[number % len(answers_of(kind))]
            for index in rng.permutation(len(pictures)):
                picture = pictures[int(index)]
                question = draw_question(picture.scene, kind, rng, answer)
                if question and (picture.image_id, question.question) not in asked:
                    asked.add((picture.image_id, question.question))
                    rows.append(
                        {
                            "question_id": f"{kind}-{number:04d}",
                            "image": f"val2017/{picture.file_name}",
                            "question": question.question,
                            "answer": question.answer,
                            "kind": kind,
                        }
                    )
                    break
    return rows


def write_world(
    out: Path,
    *,
    train: int = 3000,
    held_out: int = 300,
    seed: int = 0,
    progress: Callable[[int], None] = lambda drawn: None,
) -> None:
    """Write both splits below ``out``. Training pictures are numbered from 1, held-out ones after them.

    `progress` is told after each picture how many are drawn.
    """
    held_out_part = held_out_scenes(seed, held_out)
    splits = {"train": training_scenes(seed, train, held_out_part), "val": held_out_part}
    annotations = out / "annotations"
    annotations.mkdir(parents=True, exist_ok=True)
    for split, scenes in splits.items():
        first = 1 if split == "train" else train + 1
        pictures = [Picture(first + index, scene) for index, scene in enumerate(scenes)]
        folder = out / f"{split}2017"
        folder.mkdir(exist_ok=True)
        for index, picture in enumerate(pictures):
            drawn = render(picture.scene, generator(seed, split, index, 2))
            (folder / picture.file_name).write_bytes(jpeg_bytes(drawn))
            progress(picture.image_id)
        _write_json(annotations / f"captions_{split}2017.json", captions_document(seed, split, pictures))
        _write_json(annotations / f"instances_{split}2017.json", instances_document(split, pictures))
        if split == "val":
            lines = (json.dumps(row) + "\n" for row in benchmark_rows(seed, pictures))
            (annotations / "questions_val.jsonl").write_text("".join(lines), encoding="utf-8")


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the generator."""
    parser = argparse.ArgumentParser(prog="python -m demo.world", description="Write the demo world in COCO's layout.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--train", type=int, default=3000, help="training pictures (default %(default)s)")
    parser.add_argument("--held-out", type=int, default=300, help="held-out pictures (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default %(default)s)")
    options = parser.parse_args(arguments)
    if options.train < 1 or options.held_out < 1:
        parser.error("--train and --held-out: at least 1 picture each")
    write_world(options.out, train=options.train, held_out=options.held_out, seed=options.seed)
    print(f"{options.train} training and {options.held_out} held-out pictures in {options.out}")


if __name__ == "__main__":
    main()
