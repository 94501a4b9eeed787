"""What each node of a TrainJob runs: `python -m llava.multinode.train_node --job s3://.../job.json --processes auto`.

Number of nodes, own rank and address of the first node come from Kubeflow Trainer's environment (`PET_NNODES`, ...).
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from llava import accelerators
from llava.errors import StorageError, UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run this node's ranks; exit status 2 after a message for the user, 1 after a traceback."""
    parser = argparse.ArgumentParser(prog="python -m llava.multinode.train_node")
    parser.add_argument("--job", required=True, help="URI of the job's description")
    parser.add_argument("--processes", default="auto", help="processes on this node")
    arguments = parser.parse_args(argv)

    from llava.training import launch
    from llava.training.job import Job

    try:
        accelerators.require(int(os.environ.get(accelerators.ASKED, "0")))
        job = Job.read(arguments.job)
        try:
            launch.launch(job, launch.process_count(arguments.processes))
        except StorageError as error:
            # Only the first node's rank 0 writes the result, and it may still be about to.
            if os.environ.get("PET_NODE_RANK", "0") == "0" or not str(error).startswith(job.result_uri):
                raise
    except UserError as error:
        print(f"train_node: {error}", file=sys.stderr, flush=True)
        return 2
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
