"""One reading layer for text from outside: JSON and YAML of bounded size and depth, with finite numbers only.

What stands behind it (pydantic models, row readers) can then rely on plain dicts, lists, texts, booleans and numbers
that numpy and JSON hold: no recursion that ends the process, no integer of 5,000 digits, no Infinity, no alias bomb, no
dates that YAML made of a text. Faults are `Malformed`, a ValueError that says what is wrong; callers add the place.
"""

from __future__ import annotations

import json
import math
from typing import Any

import yaml

MOST_DOCUMENT_BYTES = 16 << 20  # of a configuration file; data files have bounds of their own
MOST_DEPTH = 64
MOST_ALIASES = 50
MOST_NODES = 200_000  # of a YAML document with its aliases written out
_INT64 = 1 << 63


class Malformed(ValueError):
    """Text that is no JSON or YAML of the kind this project reads; the message is for people."""


class BadNumber(str):
    """A number nobody can use (Infinity, 1e999, 2^64), as it was written; it fails every check for a number."""

    __slots__ = ()


def parse_json(text: str | bytes, *, most_bytes: int | None = MOST_DOCUMENT_BYTES) -> Any:
    """A JSON document, strictly: every number finite and of 64 bits at most.

    Args:
        most_bytes: largest document; None: no bound.

    Raises:
        Malformed: not JSON, too large, too deep, or with a number that cannot be used.
    """
    _bounded(text, most_bytes)
    value = _loads(text, parse_constant=_refuse, parse_float=_float, parse_int=_int)
    _refuse_deep(value)
    return value


def parse_rows(text: str | bytes) -> Any:
    """JSON of a data file: a number that cannot be used becomes a `BadNumber`, so that it is its row's fault alone.

    Raises:
        Malformed: not JSON, or nested too deeply to be read.
    """
    return _loads(text, parse_constant=BadNumber, parse_float=_float_or_bad, parse_int=_int_or_bad)


def parse_yaml(text: str) -> Any:
    """A YAML document: no tags, no timestamps (a date stays a text), each key once, aliases in moderation.

    Raises:
        Malformed: not YAML, too large, too deep, a key twice, or aliases that multiply.
    """
    _bounded(text, MOST_DOCUMENT_BYTES)
    try:
        # Merged mappings multiply before a value exists to be counted, so aliases are bounded first.
        if sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, _Loader)) > MOST_ALIASES:
            raise Malformed(f"more than {MOST_ALIASES} aliases (*name)")
        value = yaml.load(text, _Loader)  # noqa: S506  # nosec B506  (a SafeLoader)
    except yaml.YAMLError as error:
        raise Malformed(f"not YAML: {error}") from error
    except RecursionError as error:
        raise Malformed(f"nested deeper than {MOST_DEPTH} levels") from error
    except Malformed:
        raise
    except ValueError as error:  # an integer of thousands of digits, an impossible date
        raise Malformed(f"not YAML: {error}") from error
    _refuse_deep(value)
    _refuse_numbers(value)
    return value


class _Loader(yaml.SafeLoader):
    """SafeLoader without timestamps, with a fault for a repeated key."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        "while reading a mapping", node.start_mark, f"found {key.value!r} twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _bounded(text: str | bytes, most_bytes: int | None) -> None:
    if most_bytes is not None and len(text) > most_bytes:
        raise Malformed(f"{len(text):,} bytes; expected at most {most_bytes:,}")


def _loads(text: str | bytes, **hooks: Any) -> Any:
    try:
        # UTF-8 and nothing else: json would guess UTF-16 from the first bytes.
        return json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text, **hooks)
    except Malformed:
        raise
    except RecursionError as error:
        raise Malformed("nested too deeply to be read") from error
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8: {error}") from error
    except ValueError as error:
        raise Malformed(f"not JSON: {error}") from error


def _refuse(constant: str) -> float:
    raise Malformed(f"found {constant}; expected a finite number")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Malformed(f"found {text[:40]}; expected a number below 1.8e308")
    return value


def _int(text: str) -> int:
    if len(text) > 20 or not -_INT64 <= int(text) < _INT64:
        shown = text if len(text) <= 24 else f"{text[:20]}... ({len(text):,} digits)"
        raise Malformed(f"found {shown}; expected an integer of at most 64 bits")
    return int(text)


def _float_or_bad(text: str) -> float | BadNumber:
    value = float(text)
    return value if math.isfinite(value) else BadNumber(text)


def _int_or_bad(text: str) -> int | BadNumber:
    if len(text) > 20 or not -_INT64 <= int(text) < _INT64:
        return BadNumber(text)
    return int(text)


def _refuse_deep(value: Any) -> None:
    """Depth and written-out size, without recursion; a node that aliases share is counted where it is used."""
    open_nodes, seen = [(value, 1)], 0
    while open_nodes:
        node, depth = open_nodes.pop()
        if not isinstance(node, (dict, list)):
            continue
        if depth > MOST_DEPTH:
            raise Malformed(f"nested deeper than {MOST_DEPTH} levels")
        children = node.values() if isinstance(node, dict) else node
        seen += len(children)
        if seen > MOST_NODES * 50:
            raise Malformed(f"more than {MOST_NODES * 50:,} values once its aliases are written out")
        open_nodes.extend((child, depth + 1) for child in children if isinstance(child, (dict, list)))


def _refuse_numbers(value: Any) -> None:
    open_nodes, seen = [value], 0
    while open_nodes:
        node = open_nodes.pop()
        seen += 1
        if seen > MOST_NODES:
            raise Malformed(f"more than {MOST_NODES:,} values once its aliases are written out")
        if isinstance(node, dict):
            open_nodes.extend(node.values())
            open_nodes.extend(key for key in node if not isinstance(key, str))
        elif isinstance(node, list):
            open_nodes.extend(node)
        elif isinstance(node, float) and not math.isfinite(node):
            raise Malformed(f"found {node}; expected a finite number")
        elif isinstance(node, int) and not -_INT64 <= node < _INT64:
            raise Malformed("found an integer of more than 64 bits")
