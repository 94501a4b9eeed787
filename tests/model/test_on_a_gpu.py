"""What only a GPU can show: the kernel's numbers, a step that never waits for the device, compiled and fused layers.

Tolerances are those of bf16 (8 bits of mantissa, 1/256): results are compared with fp32 on the same inputs, and must be
no further from it than the plain way in bf16 is, but for a small factor.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from llava.config import LoraRecipe, ModelRecipe
from llava.model import attention, kernels, lora
from llava.model.build import build_model
from llava.model.checkpointing import checkpoint_every
from llava.model.freezing import set_trainable
from llava.model.special_tokens import load_tokenizer
from llava.training.loss import SupervisedLoss
from tests.planning.test_flops import meta_pack

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
DOCUMENTS = [61, 130, 30, 257] * 8  # so many tokens that torch takes its kernels for many


def error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found.double() - truth.double()).norm() / truth.double().norm())


@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("groups", [4, 2])
def test_the_kernel_is_attention_by_document(groups: int, window: int | None) -> None:
    torch.manual_seed(groups)
    total = sum(DOCUMENTS)
    bounds = torch.tensor([0, *torch.tensor(DOCUMENTS).cumsum(0).tolist()], dtype=torch.int32, device="cuda")
    exact = [torch.randn(1, heads, total, 64, device="cuda", requires_grad=True) for heads in (4, groups, groups)]
    low = [x.detach().bfloat16().requires_grad_() for x in exact]
    plain = [x.detach().bfloat16().requires_grad_() for x in exact]
    pull = torch.randn(1, total, 4, 64, device="cuda")
    truth = attention._by_document(*exact, bounds, 0.0, None, window)
    (truth * pull).sum().backward()
    found = attention._varlen(low[0], low[1], low[2], bounds, max(DOCUMENTS), None, window)
    (found.float() * pull).sum().backward()
    by_hand = attention._by_document(*plain, bounds, 0.0, None, window)
    (by_hand.float() * pull).sum().backward()
    assert error(found, truth) <= 1.5 * error(by_hand, truth) + 1e-4
    for mine, hand, right in zip(low, plain, exact, strict=True):
        assert mine.grad is not None and hand.grad is not None and right.grad is not None
        assert error(mine.grad, right.grad) <= 1.5 * error(hand.grad, right.grad) + 1e-4


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory, tiny_llama_dir: Path) -> Path:
    """A small Llama whose heads are 16 wide: the kernel takes multiples of 8."""
    folder = tmp_path_factory.mktemp("llama-16")
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def pack(recipe_of: Callable[..., ModelRecipe], language_model: Path) -> Iterator[tuple[ModelRecipe, Any]]:
    """A recipe, and a pack of four rows with three images on the GPU."""
    recipe = recipe_of(language_model=str(language_model))
    model: Any = build_model(recipe, tokenizer=load_tokenizer(recipe.language_model), meta=True)
    batch = meta_pack(model, DOCUMENTS, 80, 3)
    generator = torch.Generator(device="cuda").manual_seed(0)
    text, total = model.config.text_config, sum(DOCUMENTS)
    ids = torch.randint(5, text.vocab_size - 70, (1, total), device="cuda", generator=generator)
    per_image = model.config.image_seq_length
    ids[0, : 3 * per_image] = model.config.image_token_index
    batch.input_ids_BT = ids
    batch.position_ids_BT = torch.cat([torch.arange(n, device="cuda") for n in DOCUMENTS])[None]
    batch.cu_seqlens_N = torch.tensor([0, *torch.tensor(DOCUMENTS).cumsum(0).tolist()], dtype=torch.int32).cuda()
    batch.max_seqlen = max(DOCUMENTS)
    batch.pixel_values_ICHW = torch.randn(
        batch.pixel_values_ICHW.shape, device="cuda", generator=generator, dtype=torch.float32
    )
    batch.has_images = True
    batch.target_index_K = torch.cat([torch.arange(20, 60), torch.arange(100, 140)]).cuda()  # of two rows
    batch.target_ids_K = torch.randint(5, 400, (80,), device="cuda", generator=generator)
    yield recipe, batch
    torch._dynamo.reset()


def objective(recipe: ModelRecipe, dtype: torch.dtype, stage: str = "finetune") -> SupervisedLoss:
    model: Any = build_model(recipe, tokenizer=load_tokenizer(recipe.language_model), dtype=dtype, device="cuda")
    set_trainable(model, stage, train_tower=False)  # type: ignore[arg-type]
    return SupervisedLoss(model.train())


def outcome(loss: SupervisedLoss, batch: Any) -> tuple[float, dict[str, torch.Tensor]]:
    value = loss(batch, 40.0)
    value.backward()
    return float(value), {n: p.grad.float() for n, p in loss.model.named_parameters() if p.grad is not None}


def assert_as_good(found: Any, plain: Any, truth: Any) -> None:
    """Gradients of all trained parameters together no further from fp32's than plain bf16's are."""
    assert found[1].keys() == truth[1].keys()
    flat = [torch.cat([grads[name].flatten() for name in truth[1]]) for _, grads in (found, plain, truth)]
    assert flat[2].norm() > 0
    assert abs(found[0] - truth[0]) <= 2 * abs(plain[0] - truth[0]) + 2e-3
    assert error(flat[0], flat[2]) <= 1.5 * error(flat[1], flat[2]) + 1e-3


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_compiled_layers_in_bf16(stage: str, pack: tuple[ModelRecipe, Any]) -> None:
    recipe, batch = pack
    truth = outcome(objective(recipe, torch.float32, stage), batch)
    plain = outcome(objective(recipe, torch.bfloat16, stage), batch)
    compiled = objective(recipe, torch.bfloat16, stage)
    for layer in compiled.model.model.language_model.layers:  # type: ignore[union-attr]
        layer.compile(fullgraph=True)
    assert_as_good(outcome(compiled, batch), plain, truth)


@pytest.mark.skipif(importlib.util.find_spec("liger_kernel") is None, reason="liger-kernel is not installed")
@pytest.mark.parametrize("every", [0, 1])
def test_liger_s_kernels_in_bf16(every: int, pack: tuple[ModelRecipe, Any]) -> None:
    recipe, batch = pack
    truth = outcome(objective(recipe, torch.float32), batch)
    plain = outcome(objective(recipe, torch.bfloat16), batch)
    fused = objective(recipe, torch.bfloat16)
    kernels.use_liger(fused.model)
    checkpoint_every(fused.model, every)
    assert_as_good(outcome(fused, batch), plain, truth)
    again = outcome(objective(recipe, torch.bfloat16), batch)
    assert again[0] == pytest.approx(plain[0], abs=5e-3), "other models keep their modules, and share the rotation"


def test_a_step_never_waits_for_the_device(pack: tuple[ModelRecipe, Any]) -> None:
    recipe, batch = pack
    loss = objective(recipe, torch.bfloat16)
    lora.add_lora(loss.model, LoraRecipe(r=4, alpha=8), seed=0)
    loss.model.to("cuda").train()
    outcome(loss, batch)  # handles and workspaces
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            loss(batch, 40.0).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_images_that_do_not_belong_to_the_rows_are_noticed_without_a_wait() -> None:
    """In a process of its own: a failed assertion on the device ends its use."""
    import subprocess
    import sys

    code = (
        "import torch; from llava.model.forward import _check_counts\n"
        "_check_counts(torch.ones(1, 5, dtype=torch.bool, device='cuda'), 4); torch.cuda.synchronize()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "differ in number" in done.stderr or "assert" in done.stderr
