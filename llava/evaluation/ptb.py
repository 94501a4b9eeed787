"""Words of captions as the official COCO evaluation counts them: Stanford's PTB tokeniser, where Java is present.

The tokeniser is a jar inside the `pycocoevalcap` package, which is a hundred megabytes and therefore nobody's
dependency: `pip install pycocoevalcap` beside a Java is all it takes. Without one of them captions are split by
`plain_words`, which differs at hyphens, abbreviations and the like; whoever shows a CIDEr says which it was.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from llava.errors import UserError

JAR = "stanford-corenlp-3.4.1.jar"
SECONDS = 600.0  # for a corpus; 5,000 images with 5 captions each take some ten seconds
_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")
_DROPPED = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)


def plain_words(text: str) -> list[str]:
    """Lower-case words without punctuation, as the usual tokeniser leaves nearly all of them."""
    return _WORD.findall(text.lower())


@lru_cache(maxsize=1)
def jar() -> Path | None:
    """The tokeniser's jar, where it and a Java are installed."""
    package = importlib.util.find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations or shutil.which("java") is None:
        return None
    place = Path(next(iter(package.submodule_search_locations))) / "tokenizer" / JAR
    return place if place.is_file() else None


def tokenizer_name() -> str:
    """Which tokeniser `words_of` uses here, for reports."""
    return "PTB (Stanford CoreNLP 3.4.1)" if jar() else "plain word split (no Java with pycocoevalcap here)"


def words_of(texts: Sequence[str]) -> list[list[str]]:
    """The words of each text, lower-case, without punctuation.

    Raises:
        UserError: Java is there but the tokeniser failed, or did not end in time.
    """
    place = jar()
    if place is None:
        return [plain_words(text) for text in texts]
    return _by_java(place, texts)


def _by_java(place: Path, texts: Sequence[str]) -> list[list[str]]:
    """One text a line in, one line of tokens out. Every line break Java knows becomes a blank, or lines would shift."""
    lines = "".join(" ".join(re.split(r"[\r\n\x0b\x0c\x85\u2028\u2029]+", text)) + "\n" for text in texts)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(lines)
        file.flush()
        command = ["java", "-cp", str(place), "edu.stanford.nlp.process.PTBTokenizer"]
        command += ["-encoding", "UTF-8", "-preserveLines", "-lowerCase", file.name]
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)
        except (subprocess.SubprocessError, OSError) as error:
            raise UserError(f"the PTB tokeniser failed: {error}; without {place} captions are split plainly") from error
    found = done.stdout.decode().split("\n")
    if len(found) - 1 < len(texts):
        raise UserError(f"the PTB tokeniser gave {len(found) - 1} lines for {len(texts)} captions")
    return [[word for word in line.split() if word not in _DROPPED] for line in found[: len(texts)]]
