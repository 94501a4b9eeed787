"""torchrun without its wall of text: the ranks report their own failures (`llava.training.worker`)."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from llava.processes import die_with_parent, starter_environment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run torchrun; the exit code is 0 only when every rank ended well."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    die_with_parent()
    os.environ.update(starter_environment())  # for the ranks
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    options = run.parse_args(list(sys.argv[1:] if arguments is None else arguments))
    try:
        run.run(options)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return 128 - failure.exitcode if failure.exitcode < 0 else failure.exitcode or 1
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(main())
