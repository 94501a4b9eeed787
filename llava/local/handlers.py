"""How one task of a local run is started: as a process of this machine, or in a container.

Both give the stage the executor input kfp made, with two changes: artifacts lie below the run's artifact root, which
may be an object store, and HTML artifacts end in `.html`, so that a browser opens them as what they are.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from kfp.local import config, status
from kfp.local.docker_task_handler import DockerTaskHandler
from kfp.local.task_handler_interface import ITaskHandler

from llava import storage
from llava.local.attempts import Attempt, Attempts
from llava.processes import starter_environment

GRACE_S = 20.0  # what a stage gets to end by itself when the run is interrupted
# A fixed port would stop two runs on one machine; scratch volumes exist on a cluster only.
_NOT_LOCALLY = ("LLAVA_METRICS_PORT", "TMPDIR", "HF_HOME")


@dataclass
class LocalContext:
    """What the handlers of one run share.

    Attributes:
        root: local folder of kfp's bookkeeping and, unless `artifacts` says otherwise, of the artifacts.
        artifacts: path or URI below which artifacts go.
        interpreters: image prefix -> Python interpreter; the longest prefix wins, without one it is this interpreter.
        environment: variables set for every stage.
        before: stage -> those that must have ended before it, for the banner.
        attempts: where interrupted tasks resume; None: every task starts afresh.
        done: task -> exit status, in the order in which tasks really ran.
        placed: URIs of the artifacts of these tasks.
        run: name kfp gave the run's folder, known once a task has started.
    """

    root: Path
    artifacts: str
    interpreters: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    before: dict[str, set[str]] = field(default_factory=dict)
    attempts: Attempts | None = None
    done: dict[str, int] = field(default_factory=dict)
    placed: set[str] = field(default_factory=set)
    run: str = ""

    def interpreter(self, image: str) -> str:
        """The interpreter that stands for an image."""
        fitting = [prefix for prefix in self.interpreters if image.startswith(prefix)]
        return self.interpreters[max(fitting, key=len)] if fitting else sys.executable

    def say(self, text: str) -> None:
        """A line between the stages' own, on stderr as theirs."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


@dataclass
class Task:
    """One task about to run: its executor input with every artifact where it belongs.

    Attributes:
        name: kfp's name of the task's folder.
        command: what to run.
        output_file: where the executor output is expected.
        attempt: which run's places it writes to.
    """

    name: str
    command: list[str]
    output_file: Path
    attempt: Attempt


def place_task(image: str, command: list[str], context: LocalContext) -> Task:
    """Rewrite the executor input of a task's command."""
    position = command.index("--executor-input") + 1
    executor_input = json.loads(command[position])
    output_file = Path(executor_input["outputs"]["outputFile"])
    name, run = output_file.parent.name, output_file.parent.parent.name
    context.run = run
    attempt = Attempt(run)
    if context.attempts is not None:
        attempt = context.attempts.begin(name, image, command[: position - 1], executor_input["inputs"], run)
    for slot in executor_input["outputs"].get("artifacts", {}).values():
        for artifact in slot["artifacts"]:
            below_run = Path(artifact["uri"]).relative_to(context.root / run).as_posix()
            suffix = ".html" if artifact.get("type", {}).get("schemaTitle") == "system.HTML" else ""
            artifact["uri"] = storage.join(context.artifacts, attempt.run, below_run + suffix)
            context.placed.add(artifact["uri"])
    command = [*command[:position], json.dumps(executor_input), *command[position + 1 :]]
    return Task(name, command, output_file, attempt)


def process_handler_of(context: LocalContext) -> type[ITaskHandler]:
    """A handler class for one run; kfp makes an instance of it per task."""

    class StageProcess(ITaskHandler):
        """Runs a container component's command with a local interpreter in place of its image."""

        def __init__(
            self,
            image: str,
            full_command: list[str],
            pipeline_root: str,
            runner: config.SubprocessRunner,
            env_vars: dict[str, str] | None = None,
        ) -> None:
            self.task = place_task(image, full_command, context)
            self.command = self.task.command
            if self.command[0] in ("python", "python3"):
                self.command[0] = context.interpreter(image)
            given = {name: value for name, value in (env_vars or {}).items() if name not in _NOT_LOCALLY}
            self.environment = {**os.environ, "LLAVA_RUN": context.run, **given, **context.environment}
            self.environment |= starter_environment()

        def run(self) -> status.Status:
            """Run to the end; the stage's output goes to this terminal as it is written."""
            _begin(context, self.task)
            start = time.monotonic()
            # A group of its own, so that an interrupt reaches the stage once and from us, and its children with it.
            process = subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.DEVNULL, start_new_session=True
            )
            try:
                code = process.wait()
            except BaseException:
                _end(process)
                raise
            return _finish(context, self.task, code, time.monotonic() - start)

    return StageProcess


def docker_handler_of(context: LocalContext) -> type[DockerTaskHandler]:
    """A handler class for one run in Docker."""

    class StageContainer(DockerTaskHandler):
        """kfp's own, with artifacts placed, and a container that vanished unseen not taken for one that succeeded."""

        def __init__(
            self,
            image: str,
            full_command: list[str],
            pipeline_root: str,
            runner: config.DockerRunner,
            env_vars: dict[str, str] | None = None,
        ) -> None:
            self.task = place_task(image, full_command, context)
            given = {name: value for name, value in (env_vars or {}).items() if name not in _NOT_LOCALLY}
            super().__init__(image, self.task.command, pipeline_root, runner, {**given, **context.environment})

        def run(self) -> status.Status:
            """Run to the end; succeeded is only what also wrote its executor output."""
            _begin(context, self.task)
            start = time.monotonic()
            ended = super().run()
            code = 0 if ended == status.Status.SUCCESS else 1
            return _finish(context, self.task, code, time.monotonic() - start)

    return StageContainer


def _begin(context: LocalContext, task: Task) -> None:
    # A retry must not be taken for done by what an earlier attempt left.
    task.output_file.unlink(missing_ok=True)
    task.output_file.parent.mkdir(parents=True, exist_ok=True)
    # kfp chooses among what is ready; what came before without having run here came from the cache.
    position = len(context.before.get(task.name, set()) | context.done.keys() - {task.name}) + 1
    number = f"[{position}/{len(context.before)}] " if task.name in context.before else ""
    width = min(shutil.get_terminal_size().columns, 100)
    context.say(f"{number}{task.name} ".ljust(width, "-"))
    if task.attempt.resumed:
        context.say(f"{task.name}: an earlier attempt did not end; resuming from what it left")


def _finish(context: LocalContext, task: Task, code: int, seconds: float) -> status.Status:
    if code == 0 and not task.output_file.is_file():
        context.say(f"{task.name}: ended without its executor output, so it counts as failed")
        code = 1
    context.done[task.name] = code
    context.say(f"{task.name}: {'done' if code == 0 else f'failed with exit status {code}'} after {seconds:.0f} s")
    if code and task.attempt.resumed:
        place = storage.join(context.artifacts, task.attempt.run, task.name)
        context.say(f"{task.name}: to start it afresh, delete what the earlier attempt left: {place}")
    task.attempt.end(well=code == 0)
    return status.Status.SUCCESS if code == 0 else status.Status.FAILURE


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the stage's process group to end, then insist."""
    for sign, patience in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
        if process.poll() is not None:
            return
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            return
        # A second Ctrl-C while we wait must not leave the stage behind.
        waiter = threading.Thread(target=process.wait, daemon=True)
        waiter.start()
        waiter.join(patience)
