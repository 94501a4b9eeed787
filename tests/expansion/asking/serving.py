"""Start and stop the teacher server as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class RunningTeacher:
    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.endpoint = f"http://127.0.0.1:{port}/v1"

    def asked(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "asked.jsonl").read_text().splitlines()]


@contextmanager
def teacher(folder: Path, **config: Any) -> Iterator[RunningTeacher]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    process = subprocess.Popen([sys.executable, "-m", "tests.expansion.asking.teacher_server", str(folder)])
    try:
        deadline = time.monotonic() + 30
        while not (folder / "port").exists():
            assert process.poll() is None and time.monotonic() < deadline, "the teacher server did not start"
            time.sleep(0.02)
        yield RunningTeacher(folder, int((folder / "port").read_text()))
    finally:
        process.kill()
        process.wait()
