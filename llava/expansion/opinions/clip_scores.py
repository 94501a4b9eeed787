"""CLIPScore of images and texts by any CLIP or SigLIP of the hub (Hessel et al. 2021). Needs torch."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPImageProcessorPil, SiglipImageProcessorPil

from llava.data.decoding import decode
from llava.errors import SettingsError
from llava.model.sources import resolve

WEIGHT = 2.5  # of the paper: brings the cosines of CLIP near 0 to 1
_PROCESSORS = {"clip": CLIPImageProcessorPil, "siglip": SiglipImageProcessorPil}
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class ClipScorer:
    """One model with both its towers, on the GPU where there is one.

    Args:
        source: folder, URI or hub id.

    Raises:
        SettingsError: it is of another family, or cannot be read.
    """

    def __init__(self, source: str) -> None:
        path = resolve(source, "clip_model")
        try:
            config = AutoConfig.from_pretrained(path)
        except (OSError, ValueError) as error:
            raise SettingsError(f"clip_model: {source}: its configuration cannot be read: {error}") from error
        if config.model_type not in _PROCESSORS:
            raise SettingsError(
                f"clip_model: {source} is a {config.model_type!r}; expected a whole CLIP or SigLIP with its text tower "
                f"(model_type {' or '.join(_PROCESSORS)})"
            )
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            # Weights that are no safetensors are unpickled as weights only, by transformers itself.
            self._model = AutoModel.from_pretrained(path).to(self._device).eval()
            self._tokenizer = AutoTokenizer.from_pretrained(path)
            self._images = _PROCESSORS[config.model_type].from_pretrained(path)
        except (OSError, ValueError, KeyError) as error:
            raise SettingsError(f"clip_model: {source}: cannot be loaded: {error}") from error
        self._length = int(config.text_config.max_position_embeddings)
        self._siglip = config.model_type == "siglip"

    @torch.inference_mode()
    def scores(self, pairs: list[tuple[bytes, str, str]]) -> list[float]:
        """CLIPScore of each (image file's bytes, its path, text).

        Raises:
            ImageError: one of the files is no image.
        """
        if not pairs:
            return []
        images = [decode(data, path) for data, path, _ in pairs]
        pieces = [list(self.pieces(text)) for _, _, text in pairs]
        pixels_BCHW = self._images(images=images, return_tensors="pt")["pixel_values"].to(self._device)
        image_BE = _unit(self._model.get_image_features(pixel_values=pixels_BCHW))
        flat = [piece for of_row in pieces for piece in of_row]
        tokens = self._tokenizer(
            flat,
            padding="max_length" if self._siglip else True,  # SigLIP was trained so, and pools the last position
            truncation=True,
            max_length=self._length,
            return_tensors="pt",
        ).to(self._device)
        mask = {} if self._siglip else {"attention_mask": tokens["attention_mask"]}
        text_NE = _unit(self._model.get_text_features(input_ids=tokens["input_ids"], **mask))
        owner_N = torch.tensor([row for row, of_row in enumerate(pieces) for _ in of_row], device=self._device)
        cosine_N = (image_BE[owner_N] * text_NE).sum(-1)
        counts_B = torch.tensor([len(of_row) for of_row in pieces], device=self._device)
        mean_B = torch.zeros(len(pairs), device=self._device).index_add_(0, owner_N, cosine_N) / counts_B
        return [round(WEIGHT * max(float(value), 0.0), 6) for value in mean_B]

    def pieces(self, text: str) -> Iterator[str]:
        """The text in as few runs of whole sentences as the model reads; a longer sentence is cut by the tokenizer."""
        held = ""
        for sentence in _SENTENCE.split(text.strip()):
            longer = f"{held} {sentence}".strip()
            if held and len(self._tokenizer(longer)["input_ids"]) > self._length:
                yield held
                longer = sentence
            held = longer
        yield held


def _unit(features: object) -> torch.Tensor:
    found = features if isinstance(features, torch.Tensor) else features.pooler_output  # type: ignore[attr-defined]
    return torch.nn.functional.normalize(found.float(), dim=-1)
