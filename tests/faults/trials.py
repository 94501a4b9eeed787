"""What is broken where: a trial is a stage, the place it writes to, and the faults it meets one after the other."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.faults import attempts, memory
from tests.faults.attempts import Fault, Hook, after, after_files
from tests.faults.proxy import Rule

Place = Literal["disk", "store"]


@dataclass
class Trial:
    """A stage under faults. Each fault is one attempt that resumes from what those before it left.

    Attributes:
        teacher: faults of a teacher server that is asked instead of the offline one: name -> share of requests; None:
            the offline teacher.
        full_at: the disk holds this share of what the stage writes; 0: it is large.
    """

    stage: str
    place: Place
    faults: Sequence[Fault]
    teacher: dict[str, float] | None = None
    full_at: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)


def hooks(path: str, numbers: Sequence[int], *, alone: bool = False) -> list[Fault]:
    """kill -9 inside the n-th write of files that fit `path`: before fsync, before it has its name, just after."""
    found = []
    for turn, nth in enumerate(numbers):
        call, then = (("fsync", False), ("replace", False), ("replace", True))[turn % 3]
        name = f"kill {'of one rank ' if alone else ''}inside a write"
        found.append(Fault(name, hook=Hook(call, path, nth, then, alone)))
    return found


def hail(*, skip: int = 1, outage_s: float = 3.0, write: str = ".") -> Fault:
    """Everything that a store can do wrong, in one run that must go through it by itself."""
    return Fault(
        "broken store",
        rules=(
            Rule("reset", "GET", skip=skip, times=2),
            Rule("truncate", "GET", skip=skip + 1, times=2),
            Rule("busy", "GET", skip=skip + 2, times=6),
            Rule("flip", "GET", key=r"\.(json|jpg|safetensors)$", skip=skip + 3, times=2),
            Rule("drip", "GET", key=r"\.(json|jpg|safetensors)$", skip=skip + 6, times=1),
            Rule("reset", "PUT", key=write, times=1),
            Rule("busy", "PUT", key=write, skip=1, times=3),
            Rule("lost answer", "PUT", key=write, skip=2, times=1),
            Rule("outage", "PUT", key=write, skip=3, times=1, seconds=outage_s),
        ),
    )


def outage(seconds: float, skip: int) -> Fault:
    """A store that is away for longer than anything is waited for."""
    return Fault("store away for long", rules=(Rule("outage", "PUT", skip=skip, seconds=seconds),))


def cut_puts(key: str, skips: Sequence[int]) -> list[Fault]:
    """kill -9 while an object is half sent, or when it stands there and nobody was told."""
    found = []
    for turn, skip in enumerate(skips):
        how: Literal["kill inside put", "kill after put"] = "kill after put" if turn % 2 else "kill inside put"
        found.append(Fault("kill inside an upload", rules=(Rule(how, "PUT", key, skip),)))
    return found


def trained(count: int, lots: random.Random) -> list[Fault]:
    """kill -9 once a further checkpoint is whole: of everything, the stage's process, or single ranks."""
    harms = [
        ("kill of everything", attempts.kill_all),
        ("kill of one rank", attempts.kill_rank(0)),
        ("kill of the stage's process", attempts.kill_head),
        ("kill of one rank", attempts.kill_rank(1)),
    ]
    found = []
    for turn in range(count):
        name, harm = harms[turn % len(harms)]
        watch = after_files(SAVED, 1, lots.uniform(0, 0.4), harm)
        found.append(Fault(name, watch=watch))
    return found


def killed_after(low: float, high: float, count: int) -> list[Fault]:
    """kill -9 of everything at `count` times spread between `low` and `high` seconds."""
    step = (high - low) / max(1, count - 1)
    return [Fault("kill of everything", watch=after(low + step * turn)) for turn in range(count)]


def starved(pattern: str = "", seconds: float = 0.0) -> list[Fault]:
    """A memory limit of both kinds: the kernel kills, and the system refuses."""
    return [memory.killed_by_the_kernel(pattern, seconds), memory.refused(pattern, seconds)]


SAVED = "checkpoints/*/manifest.json"
FULL = Fault("full disk", full=True)
SKEWED = {
    "rate_limit": 0.12, "http500": 0.12, "http503": 0.1, "disconnect": 0.1, "not_json": 0.1, "truncated": 0.08,
    "malformed": 0.08, "no_choices": 0.06, "hang": 0.03, "late": 0.03,
}  # fmt: skip
CHECKPOINT = r"checkpoints/step-.*/(manifest|fragments-\d+)\.(json|safetensors)$"


def short() -> list[Trial]:
    """At least 20 faults in a few minutes, for CI."""
    lots = random.Random(0)
    return [
        Trial("expand", "disk", hooks(r"/expand", [1, 2, 5]) + killed_after(1.2, 2.0, 2)),
        Trial("expand", "disk", killed_after(1.5, 2.5, 2), teacher={}),
        Trial("expand", "store", [hail(skip=0)]),
        Trial("pretrain", "disk", trained(2, lots)),
        Trial("evaluate", "disk", hooks(r"\.parts/", [2])),
        Trial("export", "disk", [FULL], full_at=0.5),
    ]


def long(seed: int = 0) -> list[Trial]:
    """More than 100 faults, every kind at every stage that can meet it."""
    lots = random.Random(seed)
    return [
        Trial("expand", "disk", hooks(r"/expand", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]) + killed_after(0.8, 2.4, 5)),
        Trial("expand", "disk", killed_after(1.5, 4.0, 10), teacher={}),
        *(Trial("expand", "disk", [Fault("skewed teacher")], teacher={name: SKEWED[name]}) for name in SKEWED),
        Trial("expand", "disk", [Fault("skewed teacher"), *killed_after(2.5, 4.0, 2)], teacher=SKEWED),
        *(Trial("expand", "disk", [FULL], full_at=share) for share in (0.1, 0.5, 0.9)),
        Trial("expand", "disk", starved(seconds=2.5), teacher={}),
        Trial("expand", "store", [hail(skip=0), outage(30, 1), *cut_puts(".", [0, 1, 2, 4, 5, 6])]),
        Trial("pretrain", "disk", trained(8, lots)),
        Trial("pretrain", "disk", hooks(CHECKPOINT, [2, 3, 5, 7, 8, 10])),
        Trial("pretrain", "disk", hooks(CHECKPOINT, [4, 6, 9], alone=True)),
        Trial("pretrain", "disk", [*starved(SAVED), *hooks(r"projector/", [1, 2, 3, 4])]),
        *(Trial("pretrain", "disk", [FULL], full_at=share) for share in (0.3, 0.8)),
        Trial("pretrain", "store", [hail(write="checkpoints/"), outage(30, 6), *cut_puts("checkpoints/", [1, 4, 5])]),
        Trial("finetune", "disk", [*starved(SAVED), *trained(3, lots)]),
        Trial("finetune", "disk", [*hooks(CHECKPOINT, [3, 5, 7]), *hooks(r"finetune/model/", [1, 2, 3])]),
        *(Trial("finetune", "disk", [FULL], full_at=share) for share in (0.3, 0.9)),
        Trial("finetune", "store", [hail(write="checkpoints/"), *cut_puts("checkpoints/", [2, 3])]),
        Trial("evaluate", "disk", hooks(r"\.parts/", [2, 4, 3, 6, 2]) + killed_after(6, 12, 3)),
        Trial("evaluate", "disk", hooks(r"(finetuned|blank|stage1)\.(jsonl|about)", [1, 2, 3])),
        Trial("evaluate", "disk", starved("**/.parts/*")),
        Trial("evaluate", "disk", [FULL], full_at=0.3),
        Trial("evaluate", "store", [hail(write="predictions/"), outage(30, 4), *cut_puts("predictions/", [2, 3])]),
        Trial("export", "disk", hooks(r"/export", [1, 2, 4]) + killed_after(6, 14, 3)),
        *(Trial("export", "disk", [FULL], full_at=share) for share in (0.2, 0.8)),
        Trial("export", "disk", starved(seconds=9.0)),
        Trial("export", "store", [hail(skip=0), *cut_puts("onnx/", [0, 1])]),
    ]
