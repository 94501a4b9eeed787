"""Reading a Dockerfile as far as one must to know which files of the build context an image is made of."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_FLAG = re.compile(r"--([\w-]+)=(\S+)\s*")


class DockerfileError(ValueError):
    """The Dockerfile uses something this reader does not follow, so a content hash would be wrong."""


@dataclass(frozen=True)
class Instruction:
    """One instruction with its lines joined: `keyword` in capitals, `flags` before the rest (`--from=x`)."""

    keyword: str
    flags: tuple[tuple[str, str], ...]
    rest: str

    def text(self) -> str:
        """Canonical form: layout and comments do not count as content."""
        return " ".join([self.keyword, *(f"--{name}={value}" for name, value in self.flags), self.rest])


@dataclass
class Stage:
    """One `FROM` and what follows it."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)


@dataclass(frozen=True)
class Dockerfile:
    """Global arguments (name -> default) and the build stages in order."""

    arguments: dict[str, str]
    stages: dict[str, Stage]

    def reached(self, target: str, arguments: Mapping[str, str]) -> list[Stage]:
        """The stages that building `target` needs, lowest first.

        Raises:
            DockerfileError: there is no stage of that name.
        """
        if target not in self.stages:
            raise DockerfileError(f"target: found {target!r}; expected one of {', '.join(self.stages)}")
        values = {**self.arguments, **arguments}
        order: dict[str, Stage] = {}

        def visit(stage: Stage) -> None:
            if stage.name in order:
                return
            for name in [expand(stage.base, values), *_sources_elsewhere(stage)]:
                if name in self.stages:
                    visit(self.stages[name])
            order[stage.name] = stage

        visit(self.stages[target])
        return list(order.values())


def parse(text: str) -> Dockerfile:
    """Read a Dockerfile.

    Raises:
        DockerfileError: ADD, a heredoc, or an unnamed stage.
    """
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for instruction in _instructions(text):
        if instruction.keyword == "FROM":
            match = re.fullmatch(r"(\S+)\s+[Aa][Ss]\s+(\S+)", instruction.rest)
            if match is None:
                raise DockerfileError(f"FROM {instruction.rest}: give the stage a name (FROM image AS name)")
            current = stages.setdefault(match[2], Stage(match[2], match[1]))
        elif current is None:
            if instruction.keyword != "ARG":
                raise DockerfileError(f"{instruction.keyword} before the first FROM")
            name, _, value = instruction.rest.partition("=")
            arguments[name] = value
        else:
            if instruction.keyword == "ADD" or "<<" in instruction.rest:
                raise DockerfileError(
                    f"{instruction.keyword} {instruction.rest[:60]}: ADD and heredocs are not followed; use COPY"
                )
            current.instructions.append(instruction)
    return Dockerfile(arguments, stages)


def copied(stage: Stage, arguments: Mapping[str, str]) -> list[str]:
    """Paths and globs of the build context that a stage takes in, by COPY or bind mount."""
    values = {**_defaults(stage), **arguments}
    found: list[str] = []
    for instruction in stage.instructions:
        flags = dict(instruction.flags)
        if instruction.keyword == "COPY" and "from" not in flags:
            found += [expand(path, values) for path in shlex.split(instruction.rest)[:-1]]
        elif instruction.keyword == "RUN":
            for name, value in instruction.flags:
                mount = dict(part.partition("=")[::2] for part in value.split(","))
                if name == "mount" and mount.get("type", "bind") == "bind" and "from" not in mount:
                    found.append(expand(mount.get("source", mount.get("src", ".")), values))
    return found


def argument_names(stage: Stage) -> set[str]:
    """Names of the build arguments a stage declares."""
    return {i.rest.partition("=")[0] for i in stage.instructions if i.keyword == "ARG"}


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace `$NAME` and `${NAME}`; a name without a value becomes empty, as Docker has it."""
    return _VARIABLE.sub(lambda match: values.get(match[1] or match[2], ""), text)


def _defaults(stage: Stage) -> dict[str, str]:
    pairs = [i.rest.partition("=") for i in stage.instructions if i.keyword == "ARG"]
    return {name: value for name, equals, value in pairs if equals}


def _sources_elsewhere(stage: Stage) -> list[str]:
    found = []
    for instruction in stage.instructions:
        for name, value in instruction.flags:
            if name == "from":
                found.append(value)
            elif name == "mount":
                found += [part.removeprefix("from=") for part in value.split(",") if part.startswith("from=")]
    return found


def _instructions(text: str) -> list[Instruction]:
    joined: list[str] = []
    open_line = False
    for line in text.splitlines():
        if line.lstrip().startswith("#") or not line.strip():
            continue
        part = line.rstrip()
        continues = part.endswith("\\")
        part = part.removesuffix("\\").strip()
        if open_line:
            joined[-1] += f" {part}"
        else:
            joined.append(part)
        open_line = continues
    instructions = []
    for line in joined:
        keyword, _, rest = line.partition(" ")
        flags = []
        rest = rest.strip()
        while (match := _FLAG.match(rest)) is not None:
            flags.append((match[1], match[2]))
            rest = rest[match.end() :]
        instructions.append(Instruction(keyword.upper(), tuple(flags), rest))
    return instructions
