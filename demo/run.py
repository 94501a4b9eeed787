"""The demo: ``python -m demo.run --out runs/demo [--root s3://bucket/prefix]``.

Draws a small world in COCO's layout, compiles the pipeline, and runs the package on this machine with Kubeflow's
local orchestrator: captions become training rows, the projector is aligned, the model fine-tuned, evaluated beside
two baselines, exported to ONNX. What already ran with the same code, data and settings comes from the cache.

Writes ``summary.json`` (``demo.summary``), ``report.html`` and the compiled package below ``--out``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo import world
from demo.summary import demo_report, summarise, table
from llava import storage
from llava.errors import UserError
from llava.json_lines import lines_of
from llava.telemetry import Telemetry

HERE = Path(__file__).parent
BASE = HERE / "base"
RECIPE = "tiny"
MIXTURE = HERE / "mixture.yaml"


def make_world(folder: Path, train: int, held_out: int) -> str:
    """Draw the world into `folder` unless it stands there already; returns what identifies it."""
    sources = sorted(path for path in HERE.glob("*.py"))
    digest = hashlib.sha256(f"{train} {held_out}".encode())
    for path in sources:
        digest.update(path.read_bytes())
    wanted = digest.hexdigest()
    stamp = folder / "made-of.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        print(f"world     {folder} is there already", flush=True)
        return wanted
    print(f"world     drawing {train} training and {held_out} held-out pictures into {folder}", flush=True)
    with Telemetry("world", "demo") as telemetry:
        world.write_world(
            folder,
            train=train,
            held_out=held_out,
            progress=lambda drawn: telemetry.progress("pictures", drawn, train + held_out),
        )
    stamp.write_text(wanted)
    return wanted


def base_hash() -> str:
    """Hash of the shipped base models and the mixture: with others the results are others."""
    digest = hashlib.sha256(MIXTURE.read_bytes())
    for path in sorted(path for path in BASE.rglob("*") if path.is_file()):
        digest.update(path.relative_to(BASE).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def pipeline_parameters(folder: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the full package for a world in `folder`; `overrides` are further ones."""
    return {
        "recipe": RECIPE,
        "vision_tower": str(BASE / "clip"),
        "language_model": str(BASE / "llama"),
        "images_uri": str(folder),
        "expand_annotations_uri": str(folder / "annotations"),
        "expand_image_prefix": "train2017",
        "expand_mixture": str(MIXTURE),
        "evaluate_benchmark": "custom",
        "evaluate_questions_uri": str(folder / "annotations/questions_val.jsonl"),
        "evaluate_images_uri": str(folder),
        **overrides,
    }


def run_demo(out: Path, root: str | None, *, train: int, held_out: int, overrides: dict[str, Any]) -> dict[str, Any]:
    """World, package, run, summary.

    Args:
        out: folder for everything local.
        root: s3:// URI for the artifacts; None: below `out`.
        train: training pictures of the world.
        held_out: held-out pictures.
        overrides: pipeline parameters beyond the demo's own.

    Returns:
        The summary, as written to `summary.json`.

    Raises:
        UserError: a stage failed, or a parameter is wrong.
    """
    import pipeline
    from llava.local.leavings import link_to
    from llava.local.run import LocalOptions, run_package
    from llava.pipelines.package import compile_package
    from llava.pipelines.resources import ClusterOptions

    start = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    if root:
        # A store that cannot be written to is better known before anything is drawn or trained.
        storage.write_text(storage.join(root, ".writable"), "")
    identity = make_world(out / "world", train, held_out)
    package, _ = compile_package(pipeline.build, "full", out, ClusterOptions())
    print(f"pipeline  compiled and linted: {package}", flush=True)
    options = LocalOptions(
        root=out / "pipeline",
        artifacts=root,
        salt=f"{identity} {base_hash()}",
        environment={"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"},
    )
    record = run_package(package, pipeline_parameters((out / "world").resolve(), overrides), options)
    summary = summarise(record, wall_seconds=time.monotonic() - start)
    report = out / "report.html"
    demo_report(summary, record).write(str(report))
    for name in ("model", "onnx"):
        link_to(out / name, summary["paths"][name])
    summary["paths"] = {"report": str(report), **summary["paths"], "package": str(package)}
    storage.write_json(str(out / "summary.json"), summary)
    return summary


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the demo; exit status 2 after a message for what the user can put right."""
    from llava.local.run import INTERRUPTED

    parser = argparse.ArgumentParser(
        prog="python -m demo.run", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), help="folder for everything local (default %(default)s)"
    )
    parser.add_argument("--root", help="s3:// URI for the artifacts (default: below --out)")
    parser.add_argument("--train", type=int, default=9000, help="training pictures (default %(default)s)")
    parser.add_argument("--held-out", type=int, default=300, help="held-out pictures (default %(default)s)")
    parser.add_argument(
        "--param", action="append", default=[], metavar="NAME=VALUE", help="a pipeline parameter; repeat"
    )
    options = parser.parse_args(argv)
    if options.train < 1 or options.held_out < 1:
        parser.error("--train and --held-out: at least 1 picture each")
    # From any folder: stages are started with `python -m llava.executor`, which must be found.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH"))))
    overrides = dict(pair.partition("=")[::2] for pair in options.param)
    try:
        summary = run_demo(
            options.out, options.root, train=options.train, held_out=options.held_out, overrides=overrides
        )
    except UserError as error:
        print(f"demo: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        print(f"\ndemo: {INTERRUPTED}", file=sys.stderr, flush=True)
        return 130
    print(table(summary), flush=True)
    print(
        f"\nsummary: {options.out / 'summary.json'}\nask it yourself:\n  {chat_line(summary, options.out)}", flush=True
    )
    return 0


def chat_line(summary: dict[str, Any], out: Path) -> str:
    """The command that asks the trained model about a held-out picture."""
    picture = next(iter(sorted((out / "world/val2017").glob("*.jpg"))))
    question = json.loads(next(lines_of((out / "world/annotations/questions_val.jsonl").read_text()))[1])["question"]
    program = Path(sys.executable).parent / "llava"
    if program.is_relative_to(Path.cwd()):
        program = program.relative_to(Path.cwd())
    model = summary["paths"]["model"] if storage.is_remote(summary["paths"]["model"]) else out / "model"
    return f'{program} chat --model {model} --image {picture} "{question}"'


if __name__ == "__main__":
    sys.exit(main())
