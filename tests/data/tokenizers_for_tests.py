"""Fast tokenizers of the kinds that matter, trained in a second: SentencePiece-style (legacy or not), byte-level."""

from __future__ import annotations

from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from llava.model.special_tokens import add_tokens

CORPUS = [
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful answers.",
    "USER: What is in the picture? ASSISTANT: A red circle to the left of two blue squares.",
    "Human: Describe it.###Assistant: [INST] <<SYS>> user assistant system [/INST]\nA grey watch, 0.25 and [0.1, 0.2].",
    "ein Würfel, деревья, 三角形, émoji 🙂 — and more text\n\nwith   spaces\tand tabs.",
] * 8

KINDS = ("llama", "llama-legacy", "llama-no-bos", "byte-level", "byte-level-bos", "byte-level-untrimmed")


@cache
def _backend(kind: str) -> str:
    if kind.startswith("llama"):
        specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        tokenizer = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        # As SentencePiece learns: no piece spans a space. What splits the text afterwards is set below.
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=True)
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        alphabet: list[str] = []
    else:
        specials = ["<|endoftext|>", "<|begin|>"]
        tokenizer = Tokenizer(BPE())
        trim = kind != "byte-level-untrimmed"
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=trim)
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=specials, initial_alphabet=alphabet, show_progress=False, max_token_length=16
    )
    # SentencePiece knows newlines and tabs as bytes only.
    corpus = [" ".join(text.split()) for text in CORPUS] if kind.startswith("llama") else CORPUS
    tokenizer.train_from_iterator(corpus, trainer)
    if kind == "llama-legacy":  # as Llama 2's published tokenizer.json: a prefix after every special token
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.pre_tokenizer = None
    elif kind.startswith("llama"):
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    return tokenizer.to_str()


def make_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer with `<image>` and `<pad>`, as the model builder leaves it."""
    backend = Tokenizer.from_str(_backend(kind))
    llama = kind.startswith("llama")
    bos, eos = ("<s>", "</s>") if llama else ("<|begin|>", "<|endoftext|>")
    if kind != "byte-level" and kind != "llama-no-bos":
        template = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, backend.token_to_id(bos))]
        )
        own = backend.post_processor
        backend.post_processor = template if own is None else processors.Sequence([own, template])
    options: dict[str, Any] = {"bos_token": bos, "eos_token": eos}
    if llama:
        options["unk_token"] = "<unk>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **options)
    if kind.startswith("byte-level"):
        tokenizer.add_special_tokens(
            {"extra_special_tokens": [AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)]}
        )
    add_tokens(tokenizer)
    return tokenizer


def make_processor(tokenizer: Any, chat_template: str, *, pad: bool = True, side: int = 24, patch: int = 12) -> Any:
    """A `LlavaProcessor` with square images of `side` pixels: (side / patch)^2 visual tokens."""
    from transformers import LlavaProcessor
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    image_processor = LlavaImageProcessorPil(
        do_pad=pad, size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    )
