"""How our processes behave beside others: they do not outlive those who started them, and do not hold idle cores.

A stage or a rank whose starter was killed (out of memory, kill -9) would work on unseen, and write into the outputs of
the run that replaces it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import MutableMapping

STARTER = "LLAVA_STARTER_PID"
_PR_SET_PDEATHSIG = 1


def starter_environment() -> dict[str, str]:
    """What a process that calls `die_with_parent` must be given by the one that starts it: who that is."""
    return {STARTER: str(os.getpid())}


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends, however that ends. Linux only.

    With `starter_environment` also when it has ended already: imports take seconds, in which it may be killed.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.environ.get(STARTER, "") not in ("", str(os.getppid())):
            os.kill(os.getpid(), signal.SIGKILL)


def yield_idle_cores(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have OpenMP's threads sleep while they wait for work, unless the environment says otherwise.

    By default they spin, which on a core that others need as well keeps away the very thread that is waited for: with
    a second job on the machine, training steps of the demo took 5 to 20 times as long, and twice to four times the CPU
    time. Alone on the machine nothing is lost: `make demo` took 262 s with it and 272 s without, on two cores. To be
    called before torch is imported.
    """
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
