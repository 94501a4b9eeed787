"""Whether an image holds what its stages need: every module of ours in it imports, and so do the libraries named in
LLAVA_HEALTH. Exit code 1 and the names of what does not, otherwise. Run at the end of each build and as HEALTHCHECK.

`--compile` also writes the byte code of our modules, so that a read-only root file system costs no start-up time.
"""

from __future__ import annotations

import compileall
import importlib
import os
import pkgutil
import sys


def main() -> int:
    """Import everything; the exit code."""
    import llava

    ours = sorted(module.name for module in pkgutil.walk_packages(llava.__path__, "llava."))
    failed: list[str] = []
    for name in [*os.environ.get("LLAVA_HEALTH", "").split(), *ours]:
        # llava.x.__main__ runs a program when imported.
        if name.endswith(".__main__"):
            continue
        try:
            importlib.import_module(name)
        except Exception as error:
            failed.append(f"{name}: {type(error).__name__}: {error}")
    if "--compile" in sys.argv:
        compileall.compile_dir(llava.__path__[0], quiet=1)
    for line in failed:
        print(line, file=sys.stderr)
    if not failed:
        print(f"{len(ours)} modules import")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
