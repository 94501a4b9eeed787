"""Runs the probes of a cluster test one after the other, prints the table, and removes what was made."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Literal

from llava.errors import UserError
from llava.pipelines.clustertest.pods import Right
from llava.pipelines.clustertest.probes import Bench, Probe
from llava.pipelines.clustertest.runs import remove_prefix

Verdict = Literal["as expected", "SURPRISE", "not run"]


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    probe: str
    expected: str
    seen: str
    seconds: float
    link: str
    verdict: Verdict


def run_probes(
    bench: Bench, wanted: Sequence[Probe], lacking: Sequence[Right], say: Callable[[str], None]
) -> list[Row]:
    """Every wanted probe's line; one that fails does not stop those after it.

    Args:
        lacking: rights on the cluster that the caller does not have; probes that need one are not run.
    """
    rows = []
    for probe in wanted:
        say(f"{probe.name}: {probe.expected}?")
        began = time.monotonic()
        bench.last = ""
        verdict: Verdict
        if why := _why_not(bench, probe, lacking):
            verdict, text = "not run", why
        else:
            try:
                seen = probe.act(bench)
                verdict, text = ("as expected" if seen.expected else "SURPRISE"), seen.text
            except UserError as error:  # the endpoint, the cluster or the store refused: that too was not expected
                verdict, text = "SURPRISE", " ".join(str(error).split())
            except Exception as error:
                verdict, text = "SURPRISE", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        link = bench.runs.service.url(bench.last) if bench.last else ""
        rows.append(Row(probe.name, probe.expected, text, time.monotonic() - began, link, verdict))
        say(f"{probe.name}: {verdict} after {rows[-1].seconds:.0f} s: {text}")
    return rows


def _why_not(bench: Bench, probe: Probe, lacking: Sequence[Right]) -> str:
    if probe.on_first and not bench.first:
        return "no full run succeeded"
    if probe.rights and bench.runs.pods is None:
        return "no cluster to ask: no kubeconfig"
    if missing := [right for right in probe.rights if right in lacking]:
        return f"no right to {', '.join(map(str, missing))}"
    return ""


def table(rows: Sequence[Row]) -> str:
    """The rows as text: probe, expected, seen, seconds, link."""
    head = ("", "probe", "expected", "seen", "seconds", "link")
    lines = [
        head,
        *((row.verdict, row.probe, row.expected, row.seen, f"{row.seconds:.0f}", row.link or "-") for row in rows),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


@contextmanager
def removing(bench: Bench, prefix: str, say: Callable[[str], None], *, keep: bool) -> Iterator[None]:
    """Remove runs, experiment and everything below `prefix` at the end, also when interrupted or terminated.

    SIGTERM and a closed terminal end the probes as Ctrl-C does. While it removes, one more of them is held back once:
    who presses Ctrl-C again in impatience would leave runs behind; the second ends the removing too.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def hold_back(number: int, frame: FrameType | None) -> None:
        say("still removing what was made; once more leaves the rest where it is")
        for each in before:
            signal.signal(each, interrupt)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        try:
            for number in before:
                signal.signal(number, hold_back)
            if keep:
                say(f"kept: experiment {bench.runs.experiment}, {prefix}")
            else:
                _remove(bench, prefix, say)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _remove(bench: Bench, prefix: str, say: Callable[[str], None]) -> None:
    say(f"removing runs, experiment {bench.runs.experiment} and {prefix}")
    left = bench.runs.remove(say)
    try:
        say(f"removed {remove_prefix(prefix)} objects")
    except UserError as error:
        left.append(f"{prefix}: {error}")
    for what in left:
        say(f"could not be removed: {what}")
