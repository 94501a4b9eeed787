"""Reads a pickle of plain data without unpickling it.

REFER hands out its sentences as a pickle of dicts, lists, texts and numbers. A pickle is a program; this reads its
instructions one by one and knows only those that make plain data. Whatever would import, call or build an object is an
error, so nothing from the file is ever executed.
"""

from __future__ import annotations

import pickletools
from typing import Any

from llava.errors import DataError

_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = frozenset(["INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"])
_TEXTS = frozenset(
    ["STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"]
)
_IGNORED = frozenset(["PROTO", "FRAME", "STOP"])
_MARK = object()
_MOST_SHARED = 10
"""Values a byte of pickle: an instruction makes one at most, and the same text may stand in several places."""


def plain_data(data: bytes, name: str) -> Any:
    """The value that a pickle of plain data stands for.

    Args:
        data: the pickle.
        name: how errors call it.

    Raises:
        DataError: it is no pickle, or makes anything but dicts, lists, tuples, texts, numbers, True, False and None.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(data):
            _step(opcode.name, argument, stack, memo, name)
        [value] = stack
        _refuse_multiplied(value, _MOST_SHARED * len(data) + 1000)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise DataError(f"{name}: cannot be read as a pickle of plain data: {error}") from error
    return value


def _step(code: str, argument: Any, stack: list[Any], memo: dict[int, Any], name: str) -> None:
    if code in _IGNORED:
        return
    if code in _CONSTANTS:
        stack.append(_CONSTANTS[code])
    elif code in _NUMBERS or code in _TEXTS:
        stack.append(argument)
    elif code == "MARK":
        stack.append(_MARK)
    elif code in ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE"):
        stack.append({"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}[code]())
    elif code in ("LIST", "TUPLE", "DICT"):
        items = _to_mark(stack)
        stack.append(dict(_pairs(items)) if code == "DICT" else items if code == "LIST" else tuple(items))
    elif code in ("TUPLE1", "TUPLE2", "TUPLE3"):
        count = int(code[-1])
        last = tuple(stack[-count:])
        del stack[-count:]
        stack.append(last)
    elif code == "APPEND":
        item = stack.pop()
        stack[-1].append(item)
    elif code == "APPENDS":
        items = _to_mark(stack)
        stack[-1].extend(items)
    elif code == "SETITEM":
        value, key = stack.pop(), stack.pop()
        stack[-1][key] = value
    elif code == "SETITEMS":
        items = _to_mark(stack)
        stack[-1].update(_pairs(items))
    elif code in ("PUT", "BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif code == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif code in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif code == "POP":
        stack.pop()
    else:
        raise DataError(
            f"{name}: found the pickle instruction {code}; expected plain data, which needs none of the kind"
        )


def _refuse_multiplied(value: Any, most: int) -> None:
    """A list that holds the same list twice, sixty deep, is 300 bytes and more than any reader could walk."""
    waiting, count = [value], 0
    while waiting:
        count += 1
        if count > most:
            raise ValueError("it holds the same values over and over")
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, (list, tuple)):
            waiting += one


def _to_mark(stack: list[Any]) -> list[Any]:
    place = len(stack) - 1
    while stack[place] is not _MARK:
        place -= 1
        if place < 0:
            raise ValueError("a mark is missing")
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(items[::2], items[1::2], strict=True))
