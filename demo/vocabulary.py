"""Tokenizers of the demo base models, trained on the world's own text.

The language model's is built as Llama's is (BPE over words marked with U+2581, bytes for what it does not know, a
space put in front of the first word only); the CLIP's as CLIP's is (lower-cased words, BPE, closed by an end token).
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

_WORD_MARK = "\u2581"
_MAX_LENGTH = 1024
CLIP_CONTEXT = 77
"""Longest text a CLIP reads, in tokens."""


def llama_tokenizer(texts: Iterable[str], *, pieces: int = 560) -> PreTrainedTokenizerFast:
    """Train a Llama-style tokenizer: ``<unk> <s> </s> <pad>``, 256 bytes, then at most ``pieces`` pieces.

    No piece crosses a line break or punctuation, so a newline is always the single byte token ``<0x0A>``.
    """
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=_WORD_MARK, prepend_scheme="first"),
            pre_tokenizers.Split(Regex(rf"[^{_WORD_MARK}\w]"), behavior="isolated"),
            pre_tokenizers.Split(Regex(r"\n"), behavior="removed"),
        ]
    )
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=pieces, show_progress=False))
    learnt = json.loads(learner.to_str())["model"]
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    names = special + [f"<0x{byte:02X}>" for byte in range(256)]
    names += sorted(learnt["vocab"], key=lambda name: int(learnt["vocab"][name]))
    merges = [(left, right) for left, right in learnt["merges"]]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={name: index for index, name in enumerate(names)},
            merges=merges,
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_WORD_MARK, prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(_WORD_MARK, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", names.index("<s>"))]
    )
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="right",
        model_max_length=_MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def clip_tokenizer(texts: Iterable[str], *, pieces: int = 400) -> PreTrainedTokenizerFast:
    """Train a CLIP-style tokenizer: lower-cased, ``<|startoftext|> ... <|endoftext|>``, padded with the end token."""
    special = ["<|startoftext|>", "<|endoftext|>", "<|pad|>"]
    # Words are marked at their start: with an end-of-word suffix the trainer numbers pieces in another order each time.
    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation(behavior="isolated")]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=pieces,
        special_tokens=special,
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz0123456789"),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{special[0]} $A {special[1]}", special_tokens=[(special[0], 0), (special[1], 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=special[0],
        eos_token=special[1],
        unk_token=special[1],
        pad_token=special[2],
        model_max_length=CLIP_CONTEXT,
    )
