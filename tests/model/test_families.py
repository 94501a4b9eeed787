"""Language models of every supported family: transformers' own logits, packed or padded; what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llava.config import LoraRecipe
from llava.errors import SettingsError
from llava.model import families, lora, saving
from llava.model.forward import supervised_logits
from llava.planning.shape import Shape
from tests.model.batches import make_row, packed, padded
from tests.model.tiny_parts import TEXTS, write_language_model

Built = Callable[..., tuple[Any, Any]]


@pytest.fixture(scope="module")
def llava_of(
    tmp_path_factory: pytest.TempPathFactory, tiny_llama_dir: Path, built: Built
) -> Callable[[str], tuple[Any, Any, Path]]:
    made: dict[str, Path] = {}

    def make(family: str) -> tuple[Any, Any, Path]:
        if family not in made:
            made[family] = write_language_model(tmp_path_factory.mktemp(family), family, tiny_llama_dir)
        return (*built(language_model=str(made[family])), made[family])

    return make


def test_the_table_is_tested_whole() -> None:
    assert set(TEXTS) == set(families.SUPPORTED)


def test_the_page_has_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    for kind, family in families.SUPPORTED.items():
        templates = ", ".join(f"`{name}`" for name in family.template.split(", "))
        assert f"| `{kind}` | {family.models} | {templates} |" in page


@pytest.mark.parametrize("family", families.SUPPORTED)
def test_logits_are_transformers_own(family: str, llava_of: Any, tmp_path: Path) -> None:
    """Each row alone through the stock LLaVA as saved, eager attention; ours together, padded and packed."""
    from transformers import LlavaForConditionalGeneration

    model, processor, _ = llava_of(family)
    saving.save_model(model, processor, str(tmp_path))
    stock = LlavaForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager").eval()
    rows = [make_row(model, text=text, seed=seed) for seed, text in enumerate((9, 24, 14))]
    expected = []
    with torch.no_grad():
        for row in rows:
            logits = stock(input_ids=torch.tensor([row.ids]), pixel_values=torch.stack(row.pixels)).logits[0]
            expected.append(logits[row.answer - 1 : len(row.ids) - 1])
        for batch in (packed(rows), padded(rows), padded(rows, side="left")):
            torch.testing.assert_close(supervised_logits(model, batch), torch.cat(expected), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("family", families.SUPPORTED)
def test_text_alone_gives_the_base_models_logits(family: str, llava_of: Any) -> None:
    """Nothing of a family lies between decoder and head: `AutoModelForCausalLM` on the same ids says the same."""
    from transformers import AutoModelForCausalLM

    model, _, folder = llava_of(family)
    base = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    row = make_row(model, text=30, images=0)
    with torch.no_grad():
        expected = base(input_ids=torch.tensor([row.ids])).logits[0, row.answer - 1 : -1]
        ours = supervised_logits(model, packed([row]))[:, : expected.shape[1]]
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("family", families.SUPPORTED)
def test_generation_with_a_cache_equals_without(family: str, llava_of: Any) -> None:
    """Sliding windows, rotations without positions: answers one by one in a batch are the argmax of whole forwards."""
    from llava.model.generation import GenerationRequest, generate

    model, processor, _ = llava_of(family)
    texts = ["What is shown?", "How many shapes are there at the top left of the blue square?"]
    together = generate(model, processor, [GenerationRequest(text) for text in texts], max_new_tokens=16, stop=[])
    for text, answer in zip(texts, together, strict=True):
        ids = processor.tokenizer(text).input_ids
        start = len(ids)
        for _ in range(16):
            with torch.no_grad():
                chosen = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            if chosen == processor.tokenizer.eos_token_id:
                break
            ids.append(chosen)
        assert answer == processor.tokenizer.decode(ids[start:], skip_special_tokens=True).strip()


@pytest.mark.parametrize("family", families.SUPPORTED)
def test_adapters_go_into_the_layers_the_table_names(family: str, llava_of: Any) -> None:
    model, _, _ = llava_of(family)
    lora.add_lora(model, LoraRecipe(r=2, alpha=4, dropout=0.0, target_modules=list(families.SUPPORTED[family].lora)))
    adapted = {name.split(".lora_A")[0].rsplit(".", 1)[-1] for name, _ in model.named_parameters() if "lora_A" in name}
    assert adapted == set(families.SUPPORTED[family].lora)


@pytest.mark.parametrize("family", families.SUPPORTED)
def test_counts_of_the_plan_are_the_models(family: str, llava_of: Any) -> None:
    model, _, _ = llava_of(family)
    shape = Shape.of(model.config, "mlp2x_gelu")
    parts = [*model.model.language_model.parameters(), *model.lm_head.parameters()]
    count = sum(parameter.numel() for parameter in {id(p): p for p in parts}.values())
    assert shape.language_parameters == count


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "gpt2"}, "is a 'gpt2': its positions are learnt"),
        ({"model_type": "opt"}, "is a 'opt': its positions are learnt"),
        ({"model_type": "gemma2"}, "softcapping"),
        ({"model_type": "granite"}, "logits_scaling"),
        ({"model_type": "qwen3_moe"}, "mixture of experts"),
        ({"model_type": "bert"}, "family that is tested: llama, mistral"),
        ({"model_type": "gemma3_text", "final_logit_softcapping": 30.0}, "with final_logit_softcapping 30.0"),
    ],
)
def test_what_cannot_be_is_refused_from_its_configuration_alone(
    config: dict[str, Any], said: str, built: Built, tmp_path: Path
) -> None:
    """The folder holds nothing else: no tokenizer, no weights."""
    from llava.model.sources import text_config

    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SettingsError, match=said):
        text_config(str(tmp_path))
