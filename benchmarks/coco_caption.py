"""Words and CIDEr-D beside pycocoevalcap's own, on made-up captions with every mark its tokeniser knows.

    python -m venv PEER && PEER/bin/pip install pycocoevalcap==1.2
    python -m benchmarks.coco_caption --python PEER/bin/python

Both use Stanford's tokeniser (a Java is needed, the jar comes with the peer); the peer runs in its own environment.
Figures go to benchmarks/results/coco_caption.json. A caption with U+2028 is left out: there its line break moves every
caption behind it by one line, here it is a blank.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "coco_caption.json"
COUNT = 400
PIECES = [
    "A man's hat", "two dogs", "well-known", "U.S. flag", "e.g. this", "it's", "don't", "(a cat)", "[sign]", '"stop"',
    "1,000", "3.5", "on/off", "&", "$5", "50%", "a.m.", "...", "--", "!", "?", ";", ":", "Mr. Smith", "café",
    "“quoted”", "#1", "@home", "can't've", "rock 'n' roll", "10:30", "\n", "it is red.",
]  # fmt: skip
PEER = """
import importlib.metadata, json, sys
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
said, golds = json.load(open(sys.argv[1]))
tokenizer, captions = PTBTokenizer(), lambda texts: {k: [{"caption": text} for text in v] for k, v in texts.items()}
said, golds = tokenizer.tokenize(captions(said)), tokenizer.tokenize(captions(golds))
score, each = Cider().compute_score(golds, said)
found = {"words": {k: v[0].split() for k, v in said.items()}, "cider": dict(zip(golds, map(float, each)))}
json.dump(found | {"version": importlib.metadata.version("pycocoevalcap")}, open(sys.argv[2], "w"))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="interpreter of the environment that has pycocoevalcap")
    python = parser.parse_args().python

    from llava.evaluation.cider import cider
    from llava.evaluation.ptb import tokenizer_name, words_of

    draw = random.Random(7)

    def caption() -> str:
        return " ".join(draw.choices(PIECES, k=draw.randint(1, 7)))

    said = {str(k): [caption()] for k in range(COUNT)}
    golds = {str(k): [caption() for _ in range(draw.randint(1, 5))] for k in range(COUNT)}
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "captions.json", Path(folder) / "peer.json"
        asked.write_text(json.dumps([said, golds]))
        subprocess.run([python, "-c", PEER, str(asked), str(answered)], check=True)
        peer: dict[str, Any] = json.loads(answered.read_text())
    site = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    sys.path.append(subprocess.run(site, capture_output=True, text=True, check=True).stdout.strip())  # for the jar
    own = [texts[0] for texts in said.values()]
    scores = cider(own, list(golds.values()))
    results = {
        "peer": f"pycocoevalcap {peer['version']}",
        "tokenizer": tokenizer_name(),
        "captions": COUNT,
        "equal_words": sum(words == peer["words"][key] for key, words in zip(said, words_of(own), strict=True)),
        "largest_difference_of_cider": max(
            abs(score - peer["cider"][key]) for key, score in zip(said, scores, strict=True)
        ),
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
