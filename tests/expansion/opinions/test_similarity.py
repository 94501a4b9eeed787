"""CLIPScore as a filter: the stock model's own cosines, whole sentences, scores kept, rows dropped by kind."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.errors import SettingsError
from llava.expansion.opinions import similarity
from llava.stages.expand import STAGE, Inputs, Outputs
from llava.stages.expand_settings import Settings
from tests.model.tiny_parts import write_siglip

CLIP = Path(__file__).parents[3] / "demo/base/clip"
COLOURS = {"red": (200, 10, 10), "green": (10, 200, 10), "blue": (10, 10, 200)}

pytestmark = pytest.mark.slow


def png(colour: str, side: int = 60) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side // 2), COLOURS[colour]).save(file, "PNG")
    return file.getvalue()


def test_a_score_is_two_and_a_half_cosines_of_the_stock_model() -> None:
    import torch
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

    from llava.expansion.opinions.clip_scores import ClipScorer

    texts = ["a red square", "a blue circle on the left", "two green rings"]
    pairs = [(png(colour), colour, text) for colour, text in zip(COLOURS, texts, strict=True)]
    scores = ClipScorer(str(CLIP)).scores(pairs)
    model = CLIPModel.from_pretrained(CLIP).eval()
    tokens = AutoTokenizer.from_pretrained(CLIP)(texts, padding=True, return_tensors="pt")
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data, _, _ in pairs]
    pixels = CLIPImageProcessorPil.from_pretrained(CLIP)(images=images, return_tensors="pt")
    with torch.no_grad():
        logits = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], **pixels)
    cosines = (logits.logits_per_image / model.logit_scale.exp()).diagonal()
    assert scores == pytest.approx([2.5 * max(float(cosine), 0.0) for cosine in cosines], abs=1e-4)
    assert any(score > 0 for score in scores)


def test_a_long_text_is_scored_in_whole_sentences_that_the_model_reads() -> None:
    from llava.expansion.opinions.clip_scores import ClipScorer

    scorer = ClipScorer(str(CLIP))
    sentences = [f"a red square number {n} is on the left of a blue circle ." for n in range(12)]
    pieces = list(scorer.pieces(" ".join(sentences)))
    assert len(pieces) > 1 and " ".join(pieces) == " ".join(sentences)
    assert all(len(scorer._tokenizer(piece)["input_ids"]) <= 77 and piece.endswith(" .") for piece in pieces)
    whole, *parts = scorer.scores([(png("red"), "x", text) for text in [" ".join(sentences), *pieces]])
    assert min(parts) <= whole <= max(parts)
    long = "red " * 400  # no sentence ends: cut, not refused
    assert 0 <= scorer.scores([(png("red"), "x", long)])[0] <= 2.5


def test_a_siglip_reads_padded_texts(tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer, SiglipModel

    from llava.expansion.opinions.clip_scores import ClipScorer

    folder = write_siglip(tmp_path / "siglip", vocab_size=200)
    tokenizer = AutoTokenizer.from_pretrained(CLIP)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    length = config["text_config"]["max_position_embeddings"]
    scorer = ClipScorer(str(folder))
    [score] = scorer.scores([(png("red"), "x", "a red square")])
    model = SiglipModel.from_pretrained(folder).eval()
    tokens = tokenizer(["a red square"], padding="max_length", max_length=length, return_tensors="pt")
    image = Image.open(io.BytesIO(png("red"))).convert("RGB")
    with torch.no_grad():
        found = model(
            input_ids=tokens["input_ids"], pixel_values=scorer._images(images=[image], return_tensors="pt").pixel_values
        )
    cosine = float((found.image_embeds * found.text_embeds).sum())
    assert score == pytest.approx(2.5 * max(cosine, 0.0), abs=1e-4)


def test_a_folder_that_is_no_clip_is_refused() -> None:
    from llava.expansion.opinions.clip_scores import ClipScorer

    with pytest.raises(SettingsError, match="clip_model: .* is a 'llama'; expected a whole CLIP or SigLIP"):
        ClipScorer(str(CLIP.parent / "llama"))


def expand(folder: Path, **settings: Any) -> dict[str, float]:
    images = folder / "images"
    if not images.exists():
        images.mkdir(parents=True)
        rows = []
        for k in range(1, 13):
            (images / f"{k:03d}.png").write_bytes(png([*COLOURS][k % 3]) if k != 12 else b"no image")
            rows.append({"image": f"{k:03d}.png", "caption": f"a {[*COLOURS][k % 3]} square number {k}"})
        (folder / "captions.json").write_text(json.dumps(rows))
    given = {
        "annotations_uri": str(folder / "captions.json"), "images_uri": str(images), "kinds": "detail",
        "max_dropped": 1.0, "clip_model": str(CLIP), **settings,
    }  # fmt: skip
    out = folder / "out"
    names = {"pretrain_data": "pretrain.json", "instruct_data": "i.json", "report": "report.html", "metrics": "m"}
    return STAGE.run(
        Settings(**given), Inputs(), Outputs(**{k: str(out / v) for k, v in names.items()})
    ).metrics  # fmt: skip


def test_scores_are_kept_and_a_threshold_drops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = expand(tmp_path)
    rows = first["rows_instruct"]
    assert rows > 4 and "dropped_similarity" not in first
    assert first["similarity_unscored"] == 1  # the file that is no image: its row stays, and is counted
    kept = [json.loads(line) for line in (tmp_path / "out/i.json.provenance.jsonl").read_text().split("\n") if line]
    scores = sorted(line["scores"]["similarity"] for line in kept if "scores" in line)
    assert len(scores) == rows - 1 and first["clip_score_detail"] == pytest.approx(sum(scores) / len(scores))

    # From here on nothing computes: as in an image without torch.
    monkeypatch.setitem(sys.modules, "llava.expansion.opinions.clip_scores", None)
    middle = (scores[len(scores) // 2 - 1] + scores[len(scores) // 2]) / 2
    again = expand(tmp_path, clip_threshold=f"detail={middle}")
    below = sum(score < middle for score in scores)
    assert 0 < below < len(scores) and again["dropped_similarity"] == below and again["rows_instruct"] == rows - below
    report = (tmp_path / "out/report.html").read_text()
    assert "CLIPScore of detail rows that passed the gates" in report
    with pytest.raises(SettingsError, match="torch is not here; install the extra train"):
        expand(tmp_path / "other")


def test_what_is_compared_are_the_answers() -> None:
    from llava.expansion.rows.row import Row

    row = Row("1", "a.png", "conversation", (("<image>\nIs there a dog?", "No. "), ("Why?", "It is empty.")))
    assert similarity.text_of(row) == "No. It is empty."
