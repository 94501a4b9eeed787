"""Ranks do not outlive those who started them."""

from __future__ import annotations

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however it ends.

    torchrun starts ranks in sessions of their own. When it is killed (out of memory, kill -9) they would train on
    unseen, and write into the checkpoints of the run that replaces them.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
