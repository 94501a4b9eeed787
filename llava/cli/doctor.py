"""`llava doctor`: what this machine has of what the stages need, and what to do about what it lacks."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

import llava
from llava import accelerators, extras, storage
from llava.errors import UserError
from llava.revision import revision

app = typer.Typer(add_completion=False)

State = Literal["ok", "note", "wrong"]
_MARKS: dict[State, str] = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}
# A loader's worker hands batches over in shared memory; Docker gives 64 MiB unless told.
_SHM_BYTES = 1 << 30
_DISK_BYTES = 20 << 30
_KEYS = ("AWS_ACCESS_KEY_ID", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "HF_TOKEN", "WANDB_API_KEY")
_HUB_PATIENCE_S = 4.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: what.
        state: `ok`; `note`: fine, or not, depending on what is wanted; `wrong`: something will fail.
        found: what there is.
        advice: what to do; empty where nothing has to be done.
    """

    topic: str
    state: State
    found: str
    advice: str = ""


@app.command("doctor")
def doctor(
    store: Annotated[str, typer.Option(help="Folder of a bucket to read and write in: s3://bucket/some/folder")] = "",
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask whether the model hub can be reached")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON, for scripts")] = False,
) -> None:
    """Look at versions, GPU, memory, disk, keys, store and hub; say what to do about what is missing

    Keys are looked for, never shown. Ends with 1 where something is wrong.
    """
    findings = []
    for finding in examine(store, offline=offline):
        findings.append(finding)
        if not as_json:
            typer.echo(f"{_MARKS[finding.state]}  {finding.topic:<14} {finding.found}")
            if finding.advice:
                typer.echo(f"{'':<22}-> {finding.advice}")
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    if any(finding.state == "wrong" for finding in findings):
        raise typer.Exit(1)


def examine(store: str = "", *, offline: bool = False) -> Iterator[Finding]:
    """Everything that is looked at, in order, each as soon as it is known."""
    yield Finding("llava", "ok", f"{llava.__version__}{f' ({revision()})' if revision() else ''}")
    yield Finding("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for extra in ("expansion", "train", "export", "pipeline", "serve"):
        yield _libraries(extra)
    yield from _devices()
    yield _memory()
    yield from _shared_memory(Path("/dev/shm"))
    for name, place in (("disk here", Path.cwd()), ("disk for tmp", Path(tempfile.gettempdir()))):
        yield _disk(name, place)
    yield from _keys()
    yield from _store(store)
    yield _hub(offline)


def _libraries(extra: str) -> Finding:
    modules = extras.EXTRAS[extra]
    absent = extras.missing(modules)
    if absent:
        return Finding(
            extra, "note", f"not installed: {', '.join(absent)}", f"pip install '{extras.DISTRIBUTION}[{extra}]'"
        )
    distributions = importlib.metadata.packages_distributions()
    versions = {
        name: importlib.metadata.version(distributions[name][0]) if name in distributions else "?" for name in modules
    }
    return Finding(extra, "ok", ", ".join(f"{name} {version}" for name, version in versions.items()))


def _devices() -> Iterator[Finding]:
    if extras.missing(("torch",)):
        yield Finding("GPU", "note", "torch is not installed, so nobody was asked")
        return
    try:
        seen = accelerators.look()
    except UserError as error:
        yield Finding("GPU", "wrong", str(error), "reinstall torch; `python -c 'import torch'` must work")
        return
    if seen.names:
        yield Finding("GPU", "ok", f"{len(seen.names)} x {seen.names[0]}; torch {seen.torch} for {seen.build}")
        return
    device_files = list(Path("/dev").glob("nvidia[0-9]*"))
    if device_files and not seen.build:
        yield Finding(
            "GPU", "wrong", f"{len(device_files)} here, but torch {seen.torch} is built for CPUs",
            "install torch from the index for your CUDA version",
        )  # fmt: skip
    elif device_files:
        yield Finding(
            "GPU", "wrong", f"{len(device_files)} here, but torch (for CUDA {seen.build}) cannot use them",
            "look at nvidia-smi; the driver must not be older than torch's CUDA",
        )  # fmt: skip
    else:
        yield Finding("GPU", "note", f"none; torch {seen.torch} trains on the CPU", "fine for `tiny`, not for 7B")


def _memory() -> Finding:
    return Finding("machine", "ok", accelerators.machine())


def _shared_memory(place: Path) -> Iterator[Finding]:
    if not place.is_dir():
        return
    size = shutil.disk_usage(place).total
    enough = size >= _SHM_BYTES
    yield Finding(
        "/dev/shm", "ok" if enough else "note", f"{size / 2**30:.2f} GiB",
        "" if enough else "loader workers hand batches over in it: docker run --shm-size=8g, or an emptyDir of Memory",
    )  # fmt: skip


def _disk(name: str, place: Path) -> Finding:
    free = shutil.disk_usage(place).free
    enough = free >= _DISK_BYTES
    advice = "" if enough else "a 7B model and one checkpoint take about 100 GiB; TMPDIR moves temporary files"
    return Finding(name, "ok" if enough else "note", f"{free / 2**30:.0f} GiB free", advice)


def _keys() -> Iterator[Finding]:
    there = [name for name in _KEYS if os.environ.get(name)]
    yield Finding("keys", "ok" if there else "note", ", ".join(there) or "none of " + ", ".join(_KEYS))


def _store(uri: str) -> Iterator[Finding]:
    if not uri:
        yield Finding("store", "note", "not asked", "llava doctor --store s3://bucket/folder writes and reads there")
        return
    probe = storage.join(uri, f".llava-doctor-{os.getpid()}")
    steps: tuple[tuple[str, Callable[[], object]], ...] = (
        ("list", lambda: next(iter(storage.list_files(uri)), None)),
        ("write", lambda: storage.write_bytes(probe, b"doctor")),
        ("read", lambda: storage.read_bytes(probe)),
        ("delete", lambda: storage.delete(probe)),
    )
    for verb, step in steps:
        try:
            step()
        except UserError as error:
            yield Finding("store", "wrong", f"cannot {verb}: {error}", "look at AWS_ENDPOINT_URL, keys and rights")
            return
    yield Finding("store", "ok", f"{uri}: listed, written, read, deleted")


def _hub(offline: bool) -> Finding:
    import httpx

    if offline or os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        return Finding("hub", "note", "offline", "models come from folders, buckets and the local cache")
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        answer = httpx.head(endpoint, timeout=_HUB_PATIENCE_S, follow_redirects=True)
    except httpx.HTTPError as error:
        advice = "give models as folders or s3:// URIs and set HF_HUB_OFFLINE=1, or HF_ENDPOINT for a mirror"
        return Finding("hub", "note", f"cannot be reached ({type(error).__name__})", advice)
    return Finding("hub", "ok", f"answers ({answer.status_code})")
