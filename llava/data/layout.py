"""Layouts: a step's rows into packs of bounded tokens and images, or into padded micro-batches of like length.

All functions are deterministic and give groups of positions into their arguments; the number of groups is a multiple of
the number of ranks, and group g belongs to rank g % ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Sizes = npt.NDArray[np.int32]


def pack_rows(lengths: Sizes, images: Sizes, max_tokens: int, max_images: int, ranks: int) -> list[list[int]]:
    """Packs of at most `max_tokens` tokens and `max_images` images.

    As few packs as first-fit-decreasing finds, rounded up to a multiple of `ranks`; the rows are then spread over
    exactly that many, longest first into the emptiest, so that the ranks finish together and none idles.
    """
    order = _longest_first(lengths)
    packs = _first_fit(order, lengths, images, max_tokens, max_images)
    count = -(-len(packs) // ranks) * ranks
    spread = _spread(order, lengths, images, max_tokens, max_images, count)
    if spread is None:  # too tight to balance
        spread = packs + [[] for _ in range(count - len(packs))]
    return sorted(spread, key=lambda pack: -int(lengths[pack].sum()) if pack else 0)


def pad_rows(lengths: Sizes, size: int, ranks: int) -> list[list[int]]:
    """Micro-batches of at most `size` rows, neighbours in length, as equal in rows as can be."""
    order = _longest_first(lengths)
    count = -(-len(order) // (size * ranks)) * ranks
    return [[int(i) for i in part] for part in np.array_split(np.asarray(order, dtype=np.int64), count)]


def worst_packs(lengths: Sizes, images: Sizes, max_tokens: int, max_images: int) -> list[list[int]]:
    """Packs as heavy as any can get: one filled with the longest rows, and one with those of most images a token.

    The tower's work and memory follow images, the language model's tokens, and seldom the same rows are worst for both.
    One pack where they are.
    """
    by_tokens = _filled(_longest_first(lengths), lengths, images, max_tokens, max_images)
    density = images / np.maximum(lengths, 1)
    most_images = [int(i) for i in np.lexsort((-lengths.astype(np.int64), -density))]
    by_images = _filled(most_images, lengths, images, max_tokens, max_images)
    if int(images[by_images].sum()) <= int(images[by_tokens].sum()):
        return [by_tokens]
    return [by_tokens, by_images]


def _filled(order: Sequence[int], lengths: Sizes, images: Sizes, max_tokens: int, max_images: int) -> list[int]:
    pack: list[int] = []
    tokens = taken = 0
    for row in order:
        if tokens + lengths[row] <= max_tokens and taken + images[row] <= max_images:
            pack.append(row)
            tokens += int(lengths[row])
            taken += int(images[row])
            if len(pack) > 1 and max_tokens - tokens < 8:
                break
    return pack


def _longest_first(lengths: Sizes) -> list[int]:
    return [int(i) for i in np.argsort(-lengths.astype(np.int64), kind="stable")]


def _first_fit(
    order: Sequence[int], lengths: Sizes, images: Sizes, max_tokens: int, max_images: int
) -> list[list[int]]:
    packs: list[list[int]] = []
    room: list[list[int]] = []
    for row in order:
        tokens, taken = int(lengths[row]), int(images[row])
        at = next((i for i, left in enumerate(room) if left[0] >= tokens and left[1] >= taken), None)
        if at is None:
            at = len(packs)
            packs.append([])
            room.append([max_tokens, max_images])
        packs[at].append(row)
        room[at][0] -= tokens
        room[at][1] -= taken
    return packs


def _spread(
    order: Sequence[int], lengths: Sizes, images: Sizes, max_tokens: int, max_images: int, count: int
) -> list[list[int]] | None:
    packs: list[list[int]] = [[] for _ in range(count)]
    room = [[max_tokens, max_images] for _ in range(count)]
    for row in order:
        tokens, taken = int(lengths[row]), int(images[row])
        fits = [i for i in range(count) if room[i][0] >= tokens and room[i][1] >= taken]
        if not fits:
            return None
        best = max(fits, key=lambda i: (room[i][0], room[i][1], -i))
        packs[best].append(row)
        room[best][0] -= tokens
        room[best][1] -= taken
    return packs
