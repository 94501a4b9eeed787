"""What all trials share: the world, the store with its faulting proxy, the undisturbed chain they are compared to."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from llava import storage
from llava.storage import clients
from tests.faults import attempts, world
from tests.faults.attempts import Fault
from tests.faults.proxy import Faults, faulting
from tests.faults.table import Row
from tests.s3_server import S3Server, moto_server

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "sk-of-a-test",
    "LLAVA_STORAGE_DEADLINE_S": "12",
}  # fmt: skip
UNDISTURBED = Fault("none")


@dataclass
class Bench:
    """What all trials share.

    Attributes:
        folder: everything is below it.
        local, stored: the world on disk, and the same in the store where trials write there.
        faults: the proxy's rules in force; whoever holds `store` sets them, one at a time.
        expected: what each stage of the undisturbed chain made, once it has.
        rows: of the table, by the number of their trial.
    """

    folder: Path
    local: world.World
    stored: world.World | None = None
    server: S3Server | None = None
    faults: Faults = field(default_factory=Faults)
    store: threading.Lock = field(default_factory=threading.Lock)
    expected: dict[str, Future[dict[str, str]]] = field(default_factory=dict)
    rows: list[tuple[int, Row]] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def scratch(self) -> Path:
        """An empty place for what an attempt leaves behind."""
        return self.folder / "attempts" / f"{next(self.numbers):03d}"

    def environment(self) -> dict[str, str]:
        """Of every attempt."""
        return ENVIRONMENT | (self.server.environment if self.server else {})

    def open_store(self, stack: ExitStack) -> None:
        """Start a store behind a faulting proxy, and put the world into it."""
        self.server, self.faults = stack.enter_context(faulting(stack.enter_context(moto_server())))
        os.environ.update(self.server.environment)
        clients.forget_client()
        self.stored = world.World(storage.join(self.server.uri, "world"), storage.join(self.server.uri, "undisturbed"))
        storage.upload(Path(self.local.root), self.stored.root)

    def chain(self, stages: Sequence[str]) -> None:
        """Run the stages once without a fault; what they make is what every other run must make."""
        try:
            for stage in stages:
                out = storage.join(self.local.results, stage)
                command = self.local.command(stage, out)
                end = attempts.run(command, UNDISTURBED, Path(out), self.scratch(), self.environment())
                if end.code:
                    raise RuntimeError(f"the undisturbed {stage} failed:\n{end.said[-3000:]}")
                if self.stored:
                    with self.store:
                        storage.upload(Path(out), storage.join(self.stored.results, stage))
                found = world.content(out)
                say(f"undisturbed {stage}: {len(found)} artifacts and numbers")
                self.expected[stage].set_result(found)
        except BaseException as error:
            for waiting in self.expected.values():
                if not waiting.done():
                    waiting.set_exception(error)
            raise


def say(text: str) -> None:
    """A line with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
