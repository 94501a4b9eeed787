"""The demo's base models: made by one command, loaded as any CLIP and Llama, and knowing what they should know."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    CLIPModel,
    CLIPVisionModel,
)

from demo.captions import caption, describe
from demo.corpus import BLEND, SYSTEM, blends, dialogue, document
from demo.language_model import Batch, embed, encode_document, knowing_blends
from demo.scenes import SIDE, Scene, render, sample_scene
from demo.vocabulary import llama_tokenizer
from demo.world import held_out_scenes

REPOSITORY = Path(__file__).resolve().parents[2]
BASE = REPOSITORY / "demo" / "base"


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest models the command makes, made by the command."""
    folder = tmp_path_factory.mktemp("base-models")
    command = [sys.executable, "-m", "demo.base_models", "--quick", "--out", str(folder)]
    made = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="session", params=["quick", "shipped"])
def base(request: pytest.FixtureRequest) -> Path:
    return BASE if request.param == "shipped" else Path(request.getfixturevalue("quick"))


@pytest.mark.slow
def test_hub_directories_load_as_any_clip_and_llama(base: Path) -> None:
    clip, tower = CLIPModel.from_pretrained(base / "clip"), CLIPVisionModel.from_pretrained(base / "clip")
    image_processor = AutoImageProcessor.from_pretrained(base / "clip")
    scene = sample_scene(np.random.default_rng(0))
    picture = render(scene, np.random.default_rng(1))
    pixels_1CHW = image_processor(picture, return_tensors="pt").pixel_values
    resolution = clip.config.vision_config.image_size
    assert pixels_1CHW.shape == (1, 3, resolution, resolution)
    with torch.no_grad():
        features_BPD = tower(pixels_1CHW, output_hidden_states=True).hidden_states[-2][:, 1:]
    patches = (resolution // clip.config.vision_config.patch_size) ** 2
    assert features_BPD.shape == (1, patches, clip.config.vision_config.hidden_size)
    joint = AutoProcessor.from_pretrained(base / "clip")(text=["a red circle"], images=picture, return_tensors="pt")
    assert clip(**joint).logits_per_image.shape == (1, 1)

    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(base / "llama"),
        AutoTokenizer.from_pretrained(base / "llama"),
    )
    assert model.config.model_type == "llama"
    assert model.config.vocab_size == len(tokenizer)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == ("<s>", "</s>", "<unk>")
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert "<image>" not in tokenizer.get_vocab()  # Vicuna's has none either: whoever builds a LLaVA adds it


@pytest.mark.slow
def test_the_same_seed_makes_the_same_models(quick: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "demo.base_models", "--quick", "--out", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=300, check=True)
    for name in ("clip/model.safetensors", "llama/model.safetensors", "clip/tokenizer.json", "llama/tokenizer.json"):
        digests = {hashlib.sha256((folder / name).read_bytes()).hexdigest() for folder in (quick, tmp_path)}
        assert len(digests) == 1, name


def test_what_is_shipped_is_small_and_readable() -> None:
    files = [path for path in BASE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8 * 2**20
    assert {path.suffix for path in files} == {".json", ".safetensors"}  # nothing pickled


def _changed(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with one attribute of one shape changed."""
    while True:
        other = sample_scene(rng)
        if len(other.shapes) == len(scene.shapes) and len(other.signature & scene.signature) == len(scene.shapes) - 1:
            return other


@pytest.mark.slow
def test_clip_tells_the_matching_caption_from_one_with_a_shape_changed() -> None:
    clip, processor = CLIPModel.from_pretrained(BASE / "clip"), AutoProcessor.from_pretrained(BASE / "clip")
    rng = np.random.default_rng(7)
    scenes = [scene for scene in held_out_scenes(0, 60) if len(scene.shapes) <= 2]
    pictures = [render(scene, rng) for scene in scenes]
    texts = []
    for scene in scenes:
        texts.append(caption(scene, rng, size=True, place=True, count=True))
        texts.append(caption(_changed(scene, rng), rng, size=True, place=True, count=True))
    batch = processor(text=texts, images=pictures, return_tensors="pt", padding=True)
    with torch.no_grad():
        scores_BT = clip(**batch).logits_per_image
    pairs = [(scores_BT[row, 2 * row].item(), scores_BT[row, 2 * row + 1].item()) for row in range(len(scenes))]
    assert sum(right > wrong for right, wrong in pairs) / len(pairs) >= 0.9
    assert (scores_BT[:, ::2].argmax(-1) == torch.arange(len(scenes))).float().mean() >= 0.9


@pytest.mark.slow
def test_frozen_patch_features_carry_colour_kind_and_place() -> None:
    """A linear probe on the patch features LLaVA uses, those of a shape's own cell and no others, reads the shape."""
    tower = CLIPVisionModel.from_pretrained(BASE / "clip")
    processor = AutoImageProcessor.from_pretrained(BASE / "clip")
    rng = np.random.default_rng(8)
    scenes = [sample_scene(rng) for _ in range(1600)]
    pixels = processor([render(scene, rng) for scene in scenes], return_tensors="pt").pixel_values
    with torch.no_grad():
        features_BPD = tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    side = int(features_BPD.shape[1] ** 0.5)
    step = side // 3
    grid_BRCD = features_BPD.unflatten(1, (side, side))
    shapes = [(row, shape) for row, scene in enumerate(scenes) for shape in scene.shapes]
    inputs = []
    for row, shape in shapes:
        top, left = (step * index for index in divmod(shape.cell, 3))
        inputs.append(torch.cat([grid_BRCD[row, top : top + step, left : left + step].flatten(), torch.ones(1)]))
    x_ND, fitted = torch.stack(inputs).double(), len(shapes) * 3 // 4
    ridge_DD = x_ND[:fitted].T @ x_ND[:fitted] + torch.eye(x_ND.shape[1], dtype=torch.float64)
    for attribute, least in (("colour", 0.95), ("kind", 0.85), ("size", 0.95)):
        names = sorted({getattr(shape, attribute) for _, shape in shapes})
        y_N = torch.tensor([names.index(getattr(shape, attribute)) for _, shape in shapes])
        target_NC = torch.nn.functional.one_hot(y_N, len(names)).double()
        weights_DC = torch.linalg.solve(ridge_DD, x_ND[:fitted].T @ target_NC[:fitted])
        right = ((x_ND[fitted:] @ weights_DC).argmax(-1) == y_N[fitted:]).double().mean().item()
        assert right >= least, attribute


@pytest.mark.slow
def test_the_language_model_looks_answers_up_in_what_it_is_told() -> None:
    """Questions on held-out scenes told blended: right when told of that scene, far less often when told of another."""
    model, kept = AutoModelForCausalLM.from_pretrained(BASE / "llama"), AutoTokenizer.from_pretrained(BASE / "llama")
    tokenizer = knowing_blends(kept)
    scenes = held_out_scenes(0, 60)

    def share_right(told_of: list[Scene]) -> float:
        rng = np.random.default_rng(9)
        right = asked = 0
        for scene, told in zip(scenes, told_of, strict=True):
            words = blends(told, rng)
            spans = dialogue(scene, rng, turns=1, told=BLEND * len(words), describe=0.0)
            words_1PW = tokenizer(words, add_special_tokens=False, padding=True, return_tensors="pt").input_ids[None]
            ids, weights = encode_document(spans, tokenizer)
            batch = Batch(torch.tensor([ids]), torch.tensor([weights]), words_1PW)
            with torch.no_grad():
                embedded_1TD = embed(model, batch, tokenizer.convert_tokens_to_ids(BLEND), tokenizer.pad_token_id)
                predicted = model(inputs_embeds=embedded_1TD).logits[0].argmax(-1).tolist()
            answer = [place for place in range(1, len(ids)) if weights[place] == 1.0]
            asked += 1
            right += all(predicted[place - 1] == ids[place] for place in answer)
        return right / asked

    truth, other = share_right(scenes), share_right(scenes[1:] + scenes[:1])
    assert truth >= 0.8
    assert other <= truth - 0.3


def test_the_tokenizer_is_llamas_kind_and_loses_nothing() -> None:
    rng = np.random.default_rng(0)
    texts = ["".join(span.text for span in document(rng)) for _ in range(400)]
    tokenizer = llama_tokenizer(texts)
    for text in [*texts[:20], "Ünïcode 日本, tabs\tand  two spaces\n\nand lines", f"{SYSTEM} USER: hi ASSISTANT:"]:
        ids = tokenizer(text).input_ids
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids[1:]) == text
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("red circle\nred", add_special_tokens=False).input_ids)
    assert pieces[:3] == ["\u2581red", "\u2581circle", "<0x0A>"]  # a newline is a byte, in no piece
    assert len(tokenizer(f"{SYSTEM}").input_ids) < 40


def test_weights_fall_on_answers_and_their_end() -> None:
    rng = np.random.default_rng(1)
    scene = sample_scene(rng)
    tokenizer = llama_tokenizer(["".join(span.text for span in document(rng)) for _ in range(400)])
    spans = dialogue(scene, rng, turns=3)
    ids, weights = encode_document(spans, tokenizer)
    heavy = tokenizer.decode([token for token, weight in zip(ids, weights, strict=True) if weight == 1.0])
    assert heavy.replace(" ", "") == "".join(span.text for span in spans if span.answer).replace(" ", "")


def test_descriptions_name_what_pictures_show() -> None:
    scene = sample_scene(np.random.default_rng(4))
    text = caption(scene, np.random.default_rng(0), size=True, place=True, count=False, shuffled=False)
    assert all(describe(shape, size=True, place=True).lower() in text.lower() for shape in scene.shapes)
    assert render(scene, np.random.default_rng(0)).size == (SIDE, SIDE)
