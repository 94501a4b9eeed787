"""A real browser for pages: what it drew, what it said on its console, and what it asked the network for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
_CONSOLE = re.compile(r":CONSOLE:?\(?\d+\)?\] (.*)")


@dataclass(frozen=True)
class Visit:
    """One look at a page.

    Attributes:
        dom: the page as it stood in the end.
        picture: PNG of the window.
        console: errors and other messages of the page.
        requests: URLs the page itself asked for, other than its own file.
    """

    dom: str
    picture: Path
    console: list[str]
    requests: list[str]


def visit(
    page: Path, folder: Path, *, width: int = 1100, height: int = 4000, dark: bool = False, budget_ms: int = 0
) -> Visit:
    """Open a file in headless Chromium; `folder` takes the profile, the logs and the picture.

    Args:
        budget_ms: how long the page's own clock runs before it is looked at; 0: until it has loaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    picture, net_log = folder / f"{page.stem}-{width}.png", folder / "net.json"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
    # The browser's own calls home must not leave the machine.
    command += [
        "--disable-background-networking",
        "--disable-component-update",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ]
    command += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}"]
    command += ["--blink-settings=preferredColorScheme=0"] if dark else []
    command += [f"--virtual-time-budget={budget_ms}"] if budget_ms else []
    command += ["--enable-logging=stderr", f"--log-net-log={net_log}", f"--screenshot={picture}", "--dump-dom"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=300, check=True)
    return Visit(done.stdout, picture, _CONSOLE.findall(done.stderr), _requests(net_log, page))


def _requests(net_log: Path, page: Path) -> list[str]:
    log = json.loads(net_log.read_text())
    start = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    jobs = [event["params"] for event in log["events"] if event["type"] == start and "url" in event.get("params", {})]
    # A page's requests name the page as their initiator; the browser's own have none.
    return [
        job["url"]
        for job in jobs
        if job.get("initiator", "not an origin") != "not an origin" and job["url"] != page.as_uri()
    ]
