"""The chunked loss against torch's own cross-entropy, in fp64 where they must agree to the last digits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llava.training import head


def reference(hidden: torch.Tensor, layer: nn.Linear, targets: torch.Tensor, divisor: float) -> torch.Tensor:
    return F.cross_entropy(layer(hidden).float(), targets, reduction="sum") / divisor


def problem(
    count: int, *, bias: bool, trained: bool, dtype: torch.dtype
) -> tuple[torch.Tensor, nn.Linear, torch.Tensor]:
    torch.manual_seed(count)
    layer = nn.Linear(16, 40, bias=bias).to(dtype).requires_grad_(trained)
    return torch.randn(count, 16, dtype=dtype, requires_grad=True), layer, torch.randint(40, (count,))


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 23])
def test_loss_and_gradients_are_those_of_whole_logits(count: int, bias: bool, trained: bool) -> None:
    hidden, layer, targets = problem(count, bias=bias, trained=trained, dtype=torch.float32)
    expected = reference(hidden, layer, targets, 5.0)
    (expected * 3).backward()
    wanted = [hidden.grad, layer.weight.grad, None if layer.bias is None else layer.bias.grad]
    hidden.grad = layer.weight.grad = None
    if layer.bias is not None:
        layer.bias.grad = None
    found = head.cross_entropy(hidden, layer.weight, layer.bias, targets, 5.0, chunk=7)
    assert found.dtype == torch.float32
    (found * 3).backward()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    got = [hidden.grad, layer.weight.grad, None if layer.bias is None else layer.bias.grad]
    for one, other in zip(got, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_in_bf16_it_is_about_as_near_the_truth_as_whole_logits_are() -> None:
    hidden, layer, targets = problem(64, bias=False, trained=True, dtype=torch.bfloat16)
    exact_hidden = hidden.detach().double().requires_grad_()
    exact_weight = layer.weight.detach().double().requires_grad_()
    (F.cross_entropy(exact_hidden @ exact_weight.T, targets, reduction="sum") / 64).backward()
    reference(hidden, layer, targets, 64.0).backward()
    assert layer.weight.grad is not None and exact_weight.grad is not None
    whole = (layer.weight.grad.double() - exact_weight.grad).norm()
    layer.weight.grad = None
    head.cross_entropy(hidden, layer.weight, None, targets, 64.0, chunk=16).backward()
    assert isinstance(layer.weight.grad, torch.Tensor)
    assert (layer.weight.grad.double() - exact_weight.grad).norm() <= 2 * whole


def test_logits_exist_for_one_chunk_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, layer, targets = problem(23, bias=False, trained=True, dtype=torch.float32)
    seen: list[int] = []
    real = F.linear

    def watched(rows: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.append(len(rows))
        return real(rows, *rest)

    monkeypatch.setattr(F, "linear", watched)
    head.cross_entropy(hidden, layer.weight, None, targets, 1.0, chunk=7).backward()
    assert seen == [7, 7, 7, 2], "and the backward pass makes none again"


def test_without_gradients_none_are_made() -> None:
    hidden, layer, targets = problem(9, bias=False, trained=True, dtype=torch.float32)
    with torch.no_grad():
        found = head.cross_entropy(hidden, layer.weight, None, targets, 2.0, chunk=4)
    assert not found.requires_grad
    torch.testing.assert_close(found, reference(hidden, layer, targets, 2.0).detach())


def test_an_installed_head_still_gives_logits() -> None:
    hidden, layer, targets = problem(9, bias=True, trained=True, dtype=torch.float32)
    logits = layer(hidden)
    head.install(layer)
    assert torch.equal(layer(hidden), logits)
    torch.testing.assert_close(layer(hidden, targets, 2.0), reference(hidden, layer, targets, 2.0))
    assert list(layer.state_dict()) == ["weight", "bias"]
