"""Run several jobs in one process (or one process group): `python -m tests.training.many_jobs JOB...`."""

from __future__ import annotations

import os
import sys
import traceback

import torch.distributed as dist

from llava.training.job import Job
from llava.training.worker import run


def main(paths: list[str]) -> None:
    dist.init_process_group("gloo")
    for path in paths:
        run(Job.read(path))
    dist.destroy_process_group()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
