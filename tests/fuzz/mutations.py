"""Cases without a coverage-guided fuzzer: the corpus, cut, doubled, spliced and sprinkled with what breaks readers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
HOSTILE = (
    b"\x00", b"\xff", b"\xed\xa0\xbd", b"\\ud83d", b"\xe2\x80\xa8", b"\xc2\x85", b"\x1b[2J", b"[" * 300, b'{"a":' * 200,
    b"9" * 5000, b"-9223372036854775809", b"18446744073709551616", b"1e999", b"-1e308", b"Infinity", b"NaN", b"null",
    b"true", b"[]", b"{}", b'""', b"-1", b"0", b"&a [*a,*a]", b"<<: *a", b"!!python/object/apply:os.system [id]",
    b"2024-02-30", b"../../../etc/passwd", b"file:///etc/passwd", b"s3://x/../y", b"A" * 4000, b"\r\n", b"\n\n",
    b",", b'"',
)  # fmt: skip


def corpus(target: str) -> list[bytes]:
    """The seeds of a target: its own folder, else those of all targets."""
    own = sorted((CORPUS / target).glob("*"))
    return [path.read_bytes() for path in own] or [path.read_bytes() for path in sorted(CORPUS.glob("*/*"))]


def cases(target: str, count: int, seed: int = 0) -> Iterator[bytes]:
    """The seeds themselves, then mutations of them; the same for the same arguments."""
    rng, seeds = random.Random(f"{seed}:{target}"), corpus(target) or [b""]
    yield from seeds[:count]
    for _ in range(count - len(seeds)):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 3, 8))):
            at, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
            what = rng.randrange(7)
            if what == 0:
                data[at:at] = rng.choice(HOSTILE)
            elif what == 1:
                data[at:end] = rng.choice(HOSTILE)
            elif what == 2:
                del data[at : min(end, at + 64)]
            elif what == 3 and data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            elif what == 4:
                data[at:at] = data[at : min(end, at + 200)]
            elif what == 5:
                del data[at:]
            else:
                other = rng.choice(seeds)
                data[at:] = other[rng.randrange(len(other) + 1) :]
        yield bytes(data)
