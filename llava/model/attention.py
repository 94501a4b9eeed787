"""Attention over packs: rows laid end to end, each seeing only itself.

Registered with transformers under `NAME` and installed on the language model alone, so that the tower keeps its own.
The boundaries travel as keyword arguments through every layer: built once on the host, no layer has to find them out.

Shapes: B batch, H query heads, G key/value heads, T tokens, D head width, N document boundaries.
"""

from __future__ import annotations

import inspect
import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import varlen

NAME = "llava_packed"
# torch 2.11 has no such argument, and takes as many key/value heads as query heads.
_KERNEL_GROUPS_HEADS = "enable_gqa" in inspect.signature(varlen.varlen_attn).parameters


def install(model: nn.Module) -> None:
    """Let the language model of a LLaVA use the packed attention. Without boundaries it is transformers' own sdpa."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.model.language_model.config._attn_implementation = NAME  # type: ignore[union-attr]


def is_installed(model: nn.Module) -> bool:
    """Whether packs may be given to this model: without the packed attention, rows would see their neighbours."""
    return bool(model.model.language_model.config._attn_implementation == NAME)  # type: ignore[union-attr]


def packed_attention(
    module: nn.Module,
    query_BHTD: torch.Tensor,
    key_BGTD: torch.Tensor,
    value_BGTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seqlens_N: torch.Tensor | None = None,
    max_seqlen: int | None = None,
    padded_rows: bool = False,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each document of a pack (B = 1); transformers' interface, returns (B, T, H, D).

    On CUDA in half precision this is one variable-length kernel (`torch.nn.attention.varlen`, torch >= 2.11) for heads
    of a multiple of 8 channels. Elsewhere each document is attended to by itself, exactly as if it had come alone. With
    `padded_rows`, the mask is `padded_mask`'s, which knows nothing of a layer's sliding window: it is applied here.
    """
    if cu_seqlens_N is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        if padded_rows and sliding_window is not None and attention_mask is not None:
            attention_mask = attention_mask & _band(query_BHTD.shape[2], sliding_window, query_BHTD.device)
        out_BTHD, _ = sdpa_attention_forward(
            module, query_BHTD, key_BGTD, value_BGTD, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return out_BTHD, None
    if query_BHTD.shape[0] != 1 or key_BGTD.shape[2] != query_BHTD.shape[2]:
        raise RuntimeError(
            f"a pack is one row without a key/value cache; got batch {query_BHTD.shape[0]}, "
            f"{query_BHTD.shape[2]} queries, {key_BGTD.shape[2]} keys"
        )
    half = query_BHTD.dtype in (torch.bfloat16, torch.float16)
    if query_BHTD.is_cuda and half and dropout == 0.0 and query_BHTD.shape[-1] % 8 == 0:
        assert max_seqlen is not None
        return _varlen(query_BHTD, key_BGTD, value_BGTD, cu_seqlens_N, max_seqlen, scaling, sliding_window), None
    return _by_document(query_BHTD, key_BGTD, value_BGTD, cu_seqlens_N, dropout, scaling, sliding_window), None


def _varlen(
    query_BHTD: torch.Tensor,
    key_BGTD: torch.Tensor,
    value_BGTD: torch.Tensor,
    cu_seqlens_N: torch.Tensor,
    longest: int,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    query_THD, key_TGD, value_TGD = (x[0].transpose(0, 1) for x in (query_BHTD, key_BGTD, value_BGTD))
    left = -1 if window is None or window >= longest else window - 1
    more: dict[str, Any] = {}
    if query_THD.shape[1] != key_TGD.shape[1]:
        if _KERNEL_GROUPS_HEADS:
            more = {"enable_gqa": True}
        else:
            times = query_THD.shape[1] // key_TGD.shape[1]
            key_TGD, value_TGD = (x.repeat_interleave(times, dim=1) for x in (key_TGD, value_TGD))
    out = varlen.varlen_attn(
        query_THD,
        key_TGD,
        value_TGD,
        cu_seqlens_N,
        cu_seqlens_N,
        longest,
        longest,
        scale=scaling,
        window_size=(left, 0),
        **more,
    )
    assert isinstance(out, torch.Tensor)
    return out[None]


@torch.compiler.disable  # type: ignore[untyped-decorator]  # boundaries are data: traced, each pack would be compiled anew
def _by_document(
    query_BHTD: torch.Tensor,
    key_BGTD: torch.Tensor,
    value_BGTD: torch.Tensor,
    cu_seqlens_N: torch.Tensor,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    bounds = cu_seqlens_N.tolist()
    gqa = query_BHTD.shape[1] != key_BGTD.shape[1]
    pieces = []
    for start, end in itertools.pairwise(bounds):
        length = end - start
        if length == 0:
            continue
        mask = None
        if window is not None and window < length:
            mask = _band(length, window, query_BHTD.device)
        query, key, value = (x[:, :, start:end] for x in (query_BHTD, key_BGTD, value_BGTD))
        pieces.append(
            F.scaled_dot_product_attention(
                query, key, value, mask, dropout, is_causal=mask is None, scale=scaling, enable_gqa=gqa
            )
        )
    return torch.cat(pieces, dim=2).transpose(1, 2).contiguous()


def _band(length: int, window: int, device: torch.device) -> torch.Tensor:
    """(T, T), True for the `window` last positions up to and including each one."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril().triu(1 - window)


def pack_mask(device: torch.device) -> torch.Tensor:
    """What a packed forward gives as `attention_mask`: a 4-D tensor, which transformers hands on untouched.

    With None it would look for packs in the positions itself and build a (T, T) mask, which the kernel does not need.
    """
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)


def padded_mask(attention_mask_BT: torch.Tensor) -> torch.Tensor:
    """Causal mask (B, 1, T, T), True where attended, of rows padded on either side; asks the device for nothing.

    Padding positions attend to themselves only: a position that attends to nothing would be NaN and spoil gradients.
    """
    length = attention_mask_BT.shape[1]
    causal_TT = torch.ones(length, length, dtype=torch.bool, device=attention_mask_BT.device).tril()
    diagonal_TT = torch.eye(length, dtype=torch.bool, device=attention_mask_BT.device)
    return ((causal_TT & attention_mask_BT.bool()[:, None, :]) | diagonal_TT)[:, None]
