"""Run a compiled package on this machine.

The package is the one a cluster gets. Read in memory, two things change: retries go, because a person is watching,
and in a run by processes every image reference gets a fingerprint of the code, because that is the part of kfp's cache
key that on a cluster says which code ran.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import time
import warnings
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from kfp import components, dsl, local
from pydantic import BaseModel, ConfigDict, Field

from llava import storage
from llava.errors import UserError
from llava.local.attempts import Attempts
from llava.local.handlers import LocalContext, docker_handler_of, process_handler_of
from llava.local.symbol import docker_handler, process_handler
from llava.pipelines.values import check_arguments

RUN_RECORD = "run.json"
INTERRUPTED = "interrupted; the same command resumes from here: what is done is cached, training has its checkpoints"
CACHE_FOLDER = ".kfp_cache"
UNFINISHED_FOLDER = "unfinished"


class RunFailed(UserError):
    """A stage of the run failed; it has said why above."""


class RunOutput(BaseModel):
    """One artifact of a finished run."""

    model_config = ConfigDict(extra="forbid")

    uri: str
    metadata: dict[str, Any]
    cached: bool = Field(description="made by an earlier run, found in the cache by this one")


class RunRecord(BaseModel):
    """What a finished local run leaves as `run.json` in its folder."""

    model_config = ConfigDict(extra="forbid")

    format_version: int = 1
    pipeline: str
    run: str
    arguments: dict[str, Any]
    outputs: dict[str, RunOutput]
    ran: list[str] = Field(description="tasks that really ran; the others came from the cache")
    seconds: float
    finished_unix: float


@dataclass(frozen=True)
class LocalOptions:
    """Where and how a package runs.

    Attributes:
        root: local folder for kfp's bookkeeping, its cache, and the artifacts unless `artifacts` is given.
        artifacts: path or s3:// URI below which artifacts go.
        runner: processes of this machine, or Docker containers of the package's images.
        docker: arguments of `docker run` as docker-py names them (`user`, `read_only`, `mounts`, ...).
        interpreters: image prefix -> interpreter, for images whose dependencies lie in another environment.
        environment: variables set for every stage.
        cache: whether earlier results may be used again, those of a task that was interrupted among them.
        salt: anything else the results depend on (the content of a data folder, say), mixed into the cache key.
    """

    root: Path
    artifacts: str | None = None
    runner: Literal["subprocess", "docker"] = "subprocess"
    docker: Mapping[str, Any] = field(default_factory=dict)
    interpreters: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    cache: bool = True
    salt: str = ""


def run_package(package: Path, arguments: Mapping[str, Any], options: LocalOptions) -> RunRecord:
    """Run a compiled package to its end.

    Raises:
        SettingsError: the package or an argument is not what the package needs.
        RunFailed: a stage failed.
    """
    documents = [document for document in yaml.safe_load_all(package.read_text()) if document]
    spec = documents[0]
    values = check_arguments(spec, arguments)
    root = options.root.resolve()
    _adapt(spec, code_fingerprint(options.salt) if options.runner == "subprocess" else "")
    artifacts = options.artifacts or str(root)
    cache = root / CACHE_FOLDER / hashlib.sha256(artifacts.encode()).hexdigest()[:12]
    context = LocalContext(
        root=root,
        artifacts=artifacts,
        interpreters=dict(options.interpreters),
        environment={"LLAVA_NO_LAUNCHER": "1", "PYTHONUNBUFFERED": "1", **options.environment},
        before=_before(spec),
        attempts=Attempts(cache / UNFINISHED_FOLDER) if options.cache else None,
    )
    prune_cache(cache)
    start, started = time.monotonic(), datetime.datetime.now()
    with _kfp_local(context, options, cache):
        component = components.load_component_from_text(yaml.safe_dump_all(documents, sort_keys=False))
        try:
            produced = component(**values).outputs
        except RuntimeError as error:
            failed = [task for task, code in context.done.items() if code]
            if not failed:
                raise
            raise RunFailed(f"stage {failed[-1]!r} failed; what it said stands above") from error

    pipeline = spec["pipelineInfo"]["name"]
    # kfp names the run's folder itself; when everything came from the cache, it made none.
    name = context.run or f"{pipeline}-{started:%Y-%m-%d-%H-%M-%S-%f}"
    outputs = {key: _output(artifact, context.placed) for key, artifact in produced.items()}
    record = RunRecord(
        pipeline=pipeline,
        run=name,
        arguments=values,
        outputs=outputs,
        ran=list(context.done),
        seconds=round(time.monotonic() - start, 3),
        finished_unix=time.time(),
    )
    for place in dict.fromkeys((str(root), context.artifacts)):
        storage.write_json(storage.join(place, name, RUN_RECORD), record.model_dump(mode="json"))
    return record


def code_fingerprint(salt: str = "") -> str:
    """Hash over the code and recipes that local stages run, 12 hex digits."""
    package = Path(str(resources.files("llava")))
    recipes = package.parent / "recipes"
    digest = hashlib.sha256(salt.encode())
    for folder in (package, recipes):
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc"):
            digest.update(path.relative_to(package.parent).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def prune_cache(cache: Path) -> None:
    """Forget entries whose artifacts are gone from their object store; kfp looks after those on disk itself."""
    for entry in cache.glob("*.json"):
        outputs = json.loads(entry.read_text()).values()
        uris = [output["uri"] for output in outputs if isinstance(output, dict) and "uri" in output]
        if not all(storage.exists(uri) for uri in uris if storage.is_remote(uri)):
            entry.unlink()


def _adapt(spec: dict[str, Any], fingerprint: str) -> None:
    for component in (spec["root"], *spec.get("components", {}).values()):
        for task in component.get("dag", {}).get("tasks", {}).values():
            task.pop("retryPolicy", None)
    if fingerprint:
        for executor in spec["deploymentSpec"]["executors"].values():
            if "container" in executor:
                executor["container"]["image"] += f"+{fingerprint}"


def _before(spec: Mapping[str, Any]) -> dict[str, set[str]]:
    """Stage -> the stages that must have ended before it, by the names kfp gives their folders."""
    tasks, executors = spec["root"]["dag"]["tasks"], spec["deploymentSpec"]["executors"]

    def name_of(task: str) -> str:
        return str(tasks[task]["componentRef"]["name"]).removeprefix("comp-")

    def upstream(task: str) -> set[str]:
        direct = set(tasks[task].get("dependentTasks", []))
        return direct.union(*(upstream(other) for other in direct))

    stages = {
        task
        for task in tasks
        if "container"
        in executors.get(spec["components"][tasks[task]["componentRef"]["name"]].get("executorLabel"), {})
    }
    return {name_of(task): {name_of(other) for other in upstream(task) & stages} for task in stages}


@contextlib.contextmanager
def _kfp_local(context: LocalContext, options: LocalOptions, cache: Path) -> Iterator[None]:
    """kfp.local set up for one run; its own log goes to a file, so that the terminal belongs to the stages."""
    with contextlib.ExitStack() as stack:
        if options.runner == "docker":
            runner: Any = local.DockerRunner(**options.docker)
            stack.enter_context(docker_handler(docker_handler_of(context)))
        else:
            runner = local.SubprocessRunner(use_venv=False)
            stack.enter_context(process_handler(process_handler_of(context)))
            # In Docker kfp itself prints what the container says; that must stay on the terminal.
            log = stack.enter_context((context.root / "kfp.log").open("a", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(log))
        local.init(
            runner=runner,
            pipeline_root=str(context.root),
            raise_on_error=True,
            enable_caching=options.cache,
            cache_root=str(cache),
        )
        stack.enter_context(warnings.catch_warnings())
        # "accelerator has no effect in the current local runner", for every task.
        warnings.filterwarnings("ignore", message=".*have no effect in the current local runner.*")
        warnings.filterwarnings("ignore", message=".*using the remote file.*")
        yield


def _output(artifact: dsl.Artifact, placed: Container[str]) -> RunOutput:
    return RunOutput(uri=artifact.uri, metadata=dict(artifact.metadata), cached=artifact.uri not in placed)
