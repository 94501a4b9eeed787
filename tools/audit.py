"""What we depend on and what we wrote, looked at for known weaknesses: `make audit`. Needs no network.

    advisories   every locked version against tools/advisories.yaml
    locks        every package of an image pinned, by hash
    code         bandit over the package and its tools
    secrets      detect-secrets over every file that git knows
    dockerfile   hadolint
    sbom         a CycloneDX list of what each image installs, below build/sbom

The weekly workflow `audit.yml` asks the public database of advisories as well.
"""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml
from packaging.version import Version
from pydantic import BaseModel, ConfigDict

ROOT = Path(__file__).parents[1]
ADVISORIES, LOCKS = ROOT / "tools/advisories.yaml", ROOT / "images/locks"
BIN = Path(sys.executable).parent
BASELINE = ".secrets.baseline"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


class Advisory(BaseModel):
    """One known weakness, and the first version without it."""

    model_config = ConfigDict(extra="forbid")

    package: str
    fixed: str
    id: str
    about: str


class Accepted(BaseModel):
    """An advisory that is not acted upon in some files, until a day."""

    model_config = ConfigDict(extra="forbid")

    id: str
    files: list[str]
    reason: str
    until: datetime.date


class Policy(BaseModel):
    """`tools/advisories.yaml`."""

    model_config = ConfigDict(extra="forbid")

    advisories: list[Advisory]
    accepted: list[Accepted]


def pins(path: Path) -> dict[str, str]:
    """Package -> version of a lock or of the constraints."""
    return {name.lower().replace("_", "-"): version for name, version in _PIN.findall(path.read_text())}


def weak(policy: Policy, name: str, locked: dict[str, str], today: datetime.date) -> list[str]:
    """What of `locked`, the file `name`, has a known weakness that nobody accepted there, or not any more."""
    accepted = {each.id for each in policy.accepted if each.until >= today and name in each.files}
    return [
        f"{each.package} {locked[each.package]} is below {each.fixed}: {each.id}, {each.about}"
        for each in policy.advisories
        if each.package in locked and each.id not in accepted and Version(locked[each.package]) < Version(each.fixed)
    ]


def unpinned(path: Path) -> list[str]:
    """Lines of a lock whose package has no hash: what is installed could be changed after it was locked.

    torch for the CPU has none: it comes from an index of its own, which is not asked when locks are made.
    """
    blocks = [block for block in re.split(r"\n(?=[A-Za-z0-9])", path.read_text()) if _PIN.match(block)]
    bare = [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block]
    return [line for line in bare if not re.match(r"torch==\S+\+cpu", line)]


def findings() -> Iterator[str]:
    """Everything that is wrong, a line each."""
    policy = Policy.model_validate(yaml.safe_load(ADVISORIES.read_text()))
    places = [ROOT / "constraints.txt", *sorted(LOCKS.glob("*.txt"))]
    for path in places:
        name = path.relative_to(ROOT).as_posix()
        yield from (f"{name}: {line}" for line in weak(policy, name, pins(path), datetime.date.today()))
        if path.parent == LOCKS:
            yield from (f"{name}: {line} has no hash" for line in unpinned(path))
    known = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [name for name in known.stdout.split("\0") if name not in {"", BASELINE} and (ROOT / name).is_file()]
    commands = {
        "bandit": ["-q", "-r", "llava", "components", "tools", "demo", "pipeline.py", "-c", "pyproject.toml"],
        "hadolint": ["images/Dockerfile"],
    }
    with tempfile.TemporaryDirectory() as scratch:
        # The hook rewrites the baseline, and ends with 3, where a known line has only moved: nothing to find there.
        baseline = shutil.copy(ROOT / BASELINE, scratch)
        commands["detect-secrets-hook"] = ["--baseline", str(baseline), "--", *files]
        for program, arguments in commands.items():
            done = subprocess.run(
                [str(BIN / program), *arguments], cwd=ROOT, capture_output=True, text=True, check=False
            )
            if done.returncode and (program, done.returncode) != ("detect-secrets-hook", 3):
                yield f"{program}:\n{(done.stdout + done.stderr).strip()[-6000:]}"


def write_sboms(folder: Path) -> list[Path]:
    """A CycloneDX 1.6 document for each image's lock."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for lock in sorted(LOCKS.glob("*.txt")):
        made.append(folder / f"{lock.stem}.cdx.json")
        command = [str(BIN / "cyclonedx-py"), "requirements", str(lock), "--output-reproducible", "-o", str(made[-1])]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return made


def main() -> int:
    """Exit status 1 when something was found."""
    found = list(findings())
    for line in found:
        print(line)
    made = write_sboms(ROOT / "build/sbom")
    print(f"audit: {len(found)} findings; wrote {', '.join(str(path.relative_to(ROOT)) for path in made)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
