"""The two tokens LLaVA adds to a language model: `<image>` and, where it has none, `<pad>`.

Ids follow hub LLaVA: appended behind the vocabulary, `<image>` first; the embedding matrix is then rounded up to a
multiple of 64 rows (Vicuna: 32000 and 32001 of 32064). New rows start as the mean of the old ones, so that a fresh
model gives them an average logit and no run depends on a random draw.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from llava.config import ROUND_ROWS_TO
from llava.errors import SettingsError
from llava.image_token import IMAGE_TOKEN
from llava.model.partitions import whole, whole_shape
from llava.model.sources import resolve

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

PAD_TOKEN = "<pad>"


def load_tokenizer(language_model: str) -> PreTrainedTokenizerBase:
    """The language model's fast tokenizer with `<image>` and a padding token.

    Raises:
        SettingsError: no tokenizer there, or only a slow one (labels are built from character offsets).
    """
    from transformers import AutoTokenizer

    path = resolve(language_model, "model.language_model", weights=False)
    _need_sentencepiece(path, language_model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise SettingsError(f"model.language_model: {language_model}: its tokenizer cannot be read: {error}") from error
    # transformers drops this option when it loads, so that `save_pretrained` cannot write it, and the saved tokenizer
    # would split words behind `</s>` and `<image>` another way.
    if hasattr(tokenizer, "legacy"):
        tokenizer.init_kwargs["legacy"] = tokenizer.legacy
    if not tokenizer.is_fast:
        raise SettingsError(
            f"model.language_model: {language_model}: only a slow tokenizer; expected a fast one (tokenizer.json)"
        )
    add_tokens(tokenizer)
    return tokenizer


def _need_sentencepiece(path: str, language_model: str) -> None:
    """Say what is missing before transformers guesses at another kind of file."""
    folder = Path(path)
    if (folder / "tokenizer.json").is_file() or not (folder / "tokenizer.model").is_file():
        return
    for module in ("sentencepiece", "google.protobuf"):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise SettingsError(
                f"model.language_model: {language_model}: has a tokenizer.model and no tokenizer.json, which needs "
                f"{module}: install the extra train (pip install '.[train]')"
            ) from error


def add_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """Add `<image>`, and `<pad>` where the tokenizer has no padding token or pads with its end-of-sequence token."""
    if IMAGE_TOKEN not in tokenizer.get_vocab():
        tokenizer.add_special_tokens({"extra_special_tokens": [IMAGE_TOKEN]}, replace_extra_special_tokens=False)
    # Vicuna pads with <unk> and many models with </s>: a pad id that also means something else hides mistakes.
    if tokenizer.pad_token is None or tokenizer.pad_token in (tokenizer.eos_token, tokenizer.unk_token):
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    tokenizer.padding_side = "right"


def image_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of `<image>`."""
    token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    assert isinstance(token_id, int)
    return token_id


def rows_needed(tokenizer: PreTrainedTokenizerBase, present: int) -> int:
    """Rows of the embedding matrix: those present where all ids fit, else enough, rounded up to a multiple of 64."""
    needed = len(tokenizer)
    return present if needed <= present else -(-needed // ROUND_ROWS_TO) * ROUND_ROWS_TO


@torch.no_grad()
def resize_rows(module: nn.Embedding | nn.Linear, rows: int) -> None:
    """Grow a (V, D) embedding or bias-free head to `rows`, the new rows being the mean of the old ones, in place."""
    old = module.weight
    if rows == whole_shape(old)[0]:
        return
    with whole(old):
        mean = old.mean(dim=0, dtype=torch.float32).to(old.dtype)
        grown = torch.cat([old, mean.expand(rows - old.shape[0], -1)])
    module.weight = torch.nn.Parameter(grown, requires_grad=old.requires_grad)
    if isinstance(module, torch.nn.Embedding):
        module.num_embeddings = rows
    else:
        module.out_features = rows
