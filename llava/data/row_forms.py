"""The forms people have rows in, each with one adapter to LLaVA's own: what a reader accepts beside it.

| form | known by | images |
|---|---|---|
| LLaVA | `conversations` of `from`/`value` | `image` |
| ShareGPT | the same with further names of roles, `system` | `images` |
| messages (TRL, OpenAI) | `messages`, or `prompt` and `completion`, of `role`/`content` | `images`, or in the content |
| pairs (the Cauldron) | `texts` of `user`/`assistant` | `images` |

An adapter moves words and references, and decides nothing: what is wrong with a row `records.record_from_row` says.
Sources: TRL's dataset formats (huggingface/trl, docs/source/dataset_formats.md), OpenAI's chat completions, ShareGPT as
LLaMA-Factory reads it (data/README.md there), the Cauldron's card.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from llava.image_token import IMAGE_TOKEN

# (field, value found, what would be right, problem) -> the error to raise
Wrong = Callable[[str, object, str, str], Exception]
Note = Callable[[str], None]

ROLES = {
    "human": "human",
    "user": "human",
    "gpt": "gpt",
    "assistant": "gpt",
    "model": "gpt",
    "chatgpt": "gpt",
    "system": "system",
    "developer": "system",
}
_TEXT_PARTS = ("text", "input_text", "output_text")
_IMAGE_PARTS = ("image", "image_url", "input_image")


def to_llava(row: dict[str, Any], wrong: Wrong, note: Note) -> dict[str, Any]:
    """The row in LLaVA's form; one that is in it already comes back as it is.

    Args:
        wrong: makes the error for a part that has no place in LLaVA's form (a video, a tool's reply).
        note: told of what was moved: `system-in-first-question`.
    """
    turns: list[tuple[Any, Any]]
    images = _references(row.get("images") if row.get("image") is None else row["image"], wrong)
    conversations = row.get("conversations")
    if _is_messages(conversations):
        row = {**row, "messages": conversations}
        conversations = None
    if isinstance(conversations, list):
        if not _is_sharegpt(row, conversations):
            return row if not isinstance(row.get("image"), dict) else {**row, "image": images}
        turns = [_sharegpt_turn(number, turn, wrong) for number, turn in enumerate(conversations)]
    elif (messages := _messages(row)) is not None:
        turns, images = _from_messages(messages, images, wrong)
    elif isinstance(row.get("texts"), list) and conversations is None:
        turns = list(_pairs(row["texts"], wrong))
        turns, images = _placed(turns, images)
    else:
        return row if images == row.get("image") or not images else {**row, "image": images}
    if isinstance(row.get("system"), str) and row["system"].strip():
        turns = [("system", row["system"]), *turns]
    made: dict[str, Any] = {name: row[name] for name in ("id",) if name in row}
    if images:
        made["image"] = images[0] if len(images) == 1 else images
    made["conversations"] = [{"from": role, "value": text} for role, text in _without_system(turns, note)]
    return made


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) and "role" in turn for turn in value)


def _messages(row: dict[str, Any]) -> list[Any] | None:
    if isinstance(row.get("messages"), list):
        return list(row["messages"])
    prompt, completion = row.get("prompt"), row.get("completion")
    if _is_messages(prompt) and _is_messages(completion):
        assert isinstance(prompt, list) and isinstance(completion, list)
        return [*prompt, *completion]
    return None


def _is_sharegpt(row: dict[str, Any], turns: list[Any]) -> bool:
    if "images" in row or "system" in row:
        return True
    names = {turn.get("from") for turn in turns if isinstance(turn, dict) and isinstance(turn.get("from"), str)}
    return bool(names - {"human", "gpt"}) and names <= ROLES.keys()


def _sharegpt_turn(number: int, turn: Any, wrong: Wrong) -> tuple[Any, Any]:
    if not isinstance(turn, dict):
        raise wrong(f"conversations[{number}]", turn, "an object with from and value", "field-type")
    role = turn.get("from")
    return (ROLES.get(role, role) if isinstance(role, str) else role), turn.get("value")


def _from_messages(messages: list[Any], images: list[Any], wrong: Wrong) -> tuple[list[tuple[Any, Any]], list[Any]]:
    """Turns, and the images in the order in which `<image>` stands for them."""
    waiting, used = list(images), []
    turns: list[tuple[Any, Any]] = []
    for number, message in enumerate(messages):
        at = f"messages[{number}]"
        if not isinstance(message, dict):
            raise wrong(at, message, "an object with role and content", "field-type")
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise wrong(f"{at}.role", role, "user, assistant or system", "role")
        pieces: list[str] = []
        for text, own in _parts(message.get("content"), f"{at}.content", wrong):
            if own is not None:
                used.append(own)
            else:
                used += [waiting.pop(0) for _ in range(min(text.count(IMAGE_TOKEN), len(waiting)))]
            pieces.append(text)
        turns.append((ROLES[role], "\n".join(pieces)))
    if waiting and not used:
        return _placed(turns, waiting)
    return turns, [*used, *waiting]


def _parts(content: Any, at: str, wrong: Wrong) -> Iterator[tuple[str, Any]]:
    """(text, the image it brings itself) of each part of a message."""
    if isinstance(content, str):
        yield content, None
        return
    if not isinstance(content, list):
        raise wrong(at, content, "a text, or a list of parts", "field-type")
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in _TEXT_PARTS and isinstance(part.get("text"), str):
            yield part["text"], None
        elif kind in _IMAGE_PARTS:
            own = next((part[name] for name in ("image_url", "image", "url", "path") if part.get(name)), None)
            found = _references(own, wrong)
            yield IMAGE_TOKEN, found[0] if found else None
        else:
            raise wrong(f"{at}[{number}]", part, "a part of type text or image", "part-type")


def _pairs(texts: list[Any], wrong: Wrong) -> Iterator[tuple[Any, Any]]:
    for number, pair in enumerate(texts):
        if not isinstance(pair, dict) or "user" not in pair or "assistant" not in pair:
            raise wrong(f"texts[{number}]", pair, "an object with user and assistant", "field-type")
        yield "human", pair["user"]
        yield "gpt", pair["assistant"]


def _placed(turns: list[tuple[Any, Any]], images: list[Any]) -> tuple[list[tuple[Any, Any]], list[Any]]:
    """Images that no word stands for go before the first question, as TRL puts them."""
    if any(isinstance(text, str) and IMAGE_TOKEN in text for _, text in turns):
        return turns, images
    for number, (role, text) in enumerate(turns):
        if role == "human" and isinstance(text, str):
            turns[number] = (role, f"{IMAGE_TOKEN}\n" * len(images) + text)
            break
    return turns, images


def _without_system(turns: list[tuple[Any, Any]], note: Note) -> list[tuple[Any, Any]]:
    """A leading system text stands before the first question: the template has a system text of its own."""
    if not turns or turns[0][0] != "system":
        return turns
    told, rest = turns[0][1], turns[1:]
    if rest and rest[0][0] == "human" and isinstance(told, str) and isinstance(rest[0][1], str):
        if told.strip():
            note("system-in-first-question")
            rest[0] = ("human", f"{told.strip()}\n\n{rest[0][1]}")
        return rest
    return turns


def _references(value: Any, wrong: Wrong) -> list[Any]:
    """References of an `image` or `images` field: texts, or the objects that data sets keep images as."""
    if value is None:
        return []
    found = []
    for one in value if isinstance(value, list) else [value]:
        inner = one
        if isinstance(one, dict):
            inner = next((one[name] for name in ("path", "url", "image") if isinstance(one.get(name), str)), None)
            if inner is None:
                raise wrong("image", one, "a path or URI, or an object with path or url", "field-type")
        found.append(inner)
    return found
