"""A random little language model in exactly the form Vicuna v1.5 is published in.

`tokenizer.model` and no `tokenizer.json`; fp16 weights in `pytorch_model-*.bin` with an index and no safetensors; a
tokenizer configuration of the days before `tokenizer.json`.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

from tests.conftest import CORPUS


def train_sentencepiece(corpus: tuple[str, ...] = CORPUS, vocabulary: int = 420) -> bytes:
    """A `tokenizer.model` with the options Llama's was trained with."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus * 8),
        model_writer=model,
        vocab_size=vocabulary,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


def write_vicuna_form(folder: Path, *, legacy: bool | None, tokenizer_class: str = "LlamaTokenizer") -> Path:
    """Write the directory; `legacy` None leaves the option out, as Vicuna v1.1 to v1.3 do."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(train_sentencepiece())
    token = {"__type": "AddedToken", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    special = {f"{name}_token": {**token, "content": text} for name, text in _SPECIAL}
    options: dict[str, object] = {
        **special,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
        "pad_token": None,
        "sp_model_kwargs": {},
        "tokenizer_class": tokenizer_class,
    }
    if legacy is not None:
        options["legacy"] = legacy
    (folder / "tokenizer_config.json").write_text(json.dumps(options))
    (folder / "special_tokens_map.json").write_text(json.dumps({**special, "pad_token": "<unk>"}))
    shape = {
        "vocab_size": 420,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
    }
    with torch.random.fork_rng():
        torch.manual_seed(1)
        state = LlamaForCausalLM(LlamaConfig(**shape)).half().state_dict()
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float16", **shape}
    (folder / "config.json").write_text(json.dumps(config))
    names = sorted(state)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, keys in shards.items():
        torch.save({key: state[key] for key in keys}, folder / file)
    total = sum(tensor.numel() * 2 for tensor in state.values())
    where = {key: file for file, keys in shards.items() for key in keys}
    (folder / "pytorch_model.bin.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": where})
    )
    return folder


_SPECIAL = (("bos", "<s>"), ("eos", "</s>"), ("unk", "<unk>"))
