"""A directory of exactly Vicuna's form: loaded, trained, saved as safetensors, served the tokens it was trained on."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from llava.config import ModelRecipe, load_recipe
from llava.errors import SettingsError
from llava.model.processor import build_processor
from llava.model.processor_saving import save_processor
from llava.model.special_tokens import load_tokenizer
from tests.conftest import CORPUS, TinyWorld
from tests.model.conftest import TEMPLATE
from tests.model.vicuna_form import write_vicuna_form

TEXT = "A small circle</s>USER: <image>\nWhat is shown? ASSISTANT: A red circle</s>"


@pytest.fixture(scope="module")
def vicuna(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vicuna_form(tmp_path_factory.mktemp("vicuna"), legacy=False)


def sentencepiece_of(folder: Path) -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def test_ids_are_sentencepiece_s_own(vicuna: Path) -> None:
    tokenizer, pieces = load_tokenizer(str(vicuna)), sentencepiece_of(vicuna)
    for text in [*CORPUS, "two  spaces", "12.5 %", "é三🙂\ttab"]:
        assert tokenizer(text)["input_ids"] == [1, *pieces.encode(text)]
    assert tokenizer.convert_tokens_to_ids(["<image>", "<pad>"]) == [420, 421]


@pytest.mark.parametrize("name", ["LlamaTokenizer", "LlamaTokenizerFast"])
@pytest.mark.parametrize("legacy", [True, False, None])
def test_what_is_saved_splits_text_as_what_was_loaded(
    tmp_path: Path, legacy: bool | None, name: str, tiny_clip_dir: Path
) -> None:
    from transformers import AutoProcessor

    folder = write_vicuna_form(tmp_path / "vicuna", legacy=legacy, tokenizer_class=name)
    recipe = ModelRecipe(vision_tower=str(tiny_clip_dir), language_model=str(folder))
    processor = build_processor(recipe, TEMPLATE, "pad")
    save_processor(processor, tmp_path / "saved")
    served = AutoProcessor.from_pretrained(tmp_path / "saved").tokenizer
    assert served(TEXT)["input_ids"] == processor.tokenizer(TEXT)["input_ids"]
    if legacy:  # each stretch between special tokens is a text of its own, to SentencePiece as to legacy tokenizers
        pieces = sentencepiece_of(folder)
        expected = ["<s>"]
        for part in re.split("(</s>|<image>)", TEXT):
            expected += [part] if part in ("</s>", "<image>") else pieces.encode(part, out_type=str)
        assert served.convert_ids_to_tokens(served(TEXT)["input_ids"]) == expected


def test_a_processor_that_comes_back_different_is_not_saved(vicuna: Path, tmp_path: Path, tiny_clip_dir: Path) -> None:
    folder = write_vicuna_form(tmp_path / "vicuna", legacy=True)
    processor = build_processor(
        ModelRecipe(vision_tower=str(tiny_clip_dir), language_model=str(folder)), TEMPLATE, "pad"
    )
    del processor.tokenizer.init_kwargs["legacy"]  # what transformers itself does
    with pytest.raises(SettingsError, match="saved and reloaded, gives other ids"):
        save_processor(processor, tmp_path / "saved")
    processor = build_processor(
        ModelRecipe(vision_tower=str(tiny_clip_dir), language_model=str(vicuna)), TEMPLATE, "pad"
    )
    save = processor.save_pretrained

    def forgetful(folder: Path, **options: Any) -> None:
        save(folder, **options)
        path = folder / "processor_config.json"
        path.write_text(path.read_text().replace('"do_pad": true', '"do_pad": false'))

    processor.save_pretrained = forgetful
    with pytest.raises(SettingsError, match="makes other pixels"):
        save_processor(processor, tmp_path / "pixels")


def test_without_sentencepiece_the_message_says_what_to_install(vicuna: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(SettingsError, match=r"needs sentencepiece: install the extra train"):
        load_tokenizer(str(vicuna))


def test_an_index_that_names_a_missing_shard(tmp_path: Path, tiny_clip_dir: Path) -> None:
    from llava.model.build import build_model

    folder = write_vicuna_form(tmp_path / "vicuna", legacy=False)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    recipe = ModelRecipe(vision_tower=str(tiny_clip_dir), language_model=str(folder))
    processor = build_processor(recipe, TEMPLATE, "pad")
    with pytest.raises(SettingsError, match=r"language_model: .*pytorch_model-00002-of-00002\.bin"):
        build_model(recipe, tokenizer=processor.tokenizer)


@pytest.mark.slow
def test_both_stages_train_and_the_result_is_safetensors(
    vicuna: Path, tiny_recipe: Path, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    from safetensors.torch import load_file
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    from tests.training.jobs import make_job, run_together

    recipe = json.loads(tiny_recipe.read_text())
    recipe["model"]["language_model"] = str(vicuna)
    path = tmp_path / "vicuna.yaml"
    path.write_text(json.dumps(recipe))
    assert load_recipe(str(path)).model.language_model == str(vicuna)
    first = make_job("pretrain", path, tiny_world, tmp_path / "1", max_steps=2)
    second = make_job("finetune", path, tiny_world, tmp_path / "2", projector=first.output_uri, max_steps=2)
    results = run_together([first, second], 1, tmp_path)
    assert [result.steps for result in results] == [2, 2]
    output = Path(second.output_uri)
    assert not list(output.glob("*.bin")) and not (output / "tokenizer.model").exists()
    _, report = LlavaForConditionalGeneration.from_pretrained(output, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    before = torch.load(vicuna / "pytorch_model-00001-of-00002.bin")
    after = load_file(output / "model.safetensors")
    trained = [
        key
        for key in before
        if not torch.equal(before[key].float(), after[f"language_model.{key}"][: len(before[key])])
    ]
    assert any("layers" in key for key in trained)
    pieces = sentencepiece_of(vicuna)
    assert AutoProcessor.from_pretrained(output).tokenizer(CORPUS[3])["input_ids"] == [1, *pieces.encode(CORPUS[3])]
