"""Labels: token ids and labels of one record, from the spans its template gives.

The text is tokenised once, with one `<image>` per image, and a token is trained when its last character lies in a
trained span. Afterwards each image token is repeated `visual_tokens[k]` times. `<image>` is a token of its own, so this
gives the same ids as tokenising the expanded text, which is what the saved processor does, and costs a tenth.

Shapes: T tokens, C characters.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llava.data.records import Record
from llava.data.templates import Span, Template
from llava.errors import RowError, SettingsError
from llava.image_token import IMAGE_TOKEN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE_INDEX = -100


@dataclass(frozen=True)
class Encoded:
    """One row as the model sees it.

    Attributes:
        input_ids: int32, T.
        labels: int32, T; `IGNORE_INDEX` where the loss does not fall; `labels[t]` is the token at t, not the next one.
        images: how many of the record's images are left; fewer than the record's only when the row was cut.
        cut: tokens lost to `max_length`.
    """

    input_ids: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    images: int
    cut: int = 0

    @property
    def supervised(self) -> int:
        """Positions whose next token is trained: what the loss is summed over."""
        return int((self.labels[1:] != IGNORE_INDEX).sum())


@dataclass(frozen=True)
class _Text:
    """A rendered record. `own_bos`: it brings its own begin token."""

    text: str
    spans: list[Span]
    own_bos: bool


class RowEncoder:
    """Encodes records with one template and one tokenizer. Safe to call from threads.

    Args:
        template: from `get_template`; bound to `tokenizer` here if it is not yet.
        tokenizer: a fast tokenizer that knows `image_token`.
        max_length: rows longer than this many tokens are cut on the right; an image is cut whole.
    """

    def __init__(
        self,
        template: Template,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int | None = None,
        image_token: str = IMAGE_TOKEN,
    ) -> None:
        if not tokenizer.is_fast:
            raise SettingsError(
                f"tokenizer: {type(tokenizer).__name__} is not a fast tokenizer; labels need its character offsets"
            )
        self.template = template.bound(tokenizer)
        self.max_length = max_length
        self.image_token = image_token
        added = tokenizer.get_added_vocab()
        if image_token not in added:
            raise SettingsError(f"tokenizer: {image_token!r} is not one of its added tokens; build the processor first")
        self.image_token_id = int(added[image_token])
        # A copy: the caller's calls with padding or truncation change the tokenizer they share.
        self._backend: Any = copy.deepcopy(tokenizer.backend_tokenizer)
        self._backend.no_padding()
        self._backend.no_truncation()
        self._bos = tokenizer.bos_token
        self.pad_id = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)
        special = [
            token.content
            for token in tokenizer.added_tokens_decoder.values()
            if token.special and token.content != image_token
        ]
        self._control = (
            re.compile("|".join(re.escape(token) for token in sorted(special, key=len, reverse=True)))
            if special
            else None
        )

    def fingerprint(self) -> str:
        """SHA-256 of all that decides what `encode` gives: tokenizer, template, length."""
        parts = [self._backend.to_str(), self.template.chat_template(), self.template.name, self.max_length]
        return hashlib.sha256(json.dumps([*parts, self.image_token, self._bos]).encode()).hexdigest()

    def encode(self, record: Record, visual_tokens: Sequence[int], *, file: str = "(memory)") -> Encoded:
        """Ids and labels of one record.

        Args:
            visual_tokens: number of visual tokens of each of the record's images.
            file: for the message of an error.

        Raises:
            RowError: `control-token` where a turn contains one of the tokenizer's special tokens literally; `no-labels`
                where nothing is left to train on after cutting; `image-count` where `visual_tokens` does not fit.
        """
        text = self._render(record, visual_tokens, file)
        encoding = self._backend.encode(text.text, add_special_tokens=not text.own_bos)
        return self._finish(record, visual_tokens, text, encoding, file)

    def encode_all(
        self, records: Sequence[Record], visual_tokens: Sequence[Sequence[int]], *, file: str = "(memory)"
    ) -> list[Encoded | RowError]:
        """What `encode` gives for each record, in order, the error of a row in its place.

        The tokenizer runs over all of them at once and without Python's lock, so threads make this faster.
        """
        results: list[Encoded | RowError | None] = [None] * len(records)
        texts: dict[int, _Text] = {}
        for at, (record, tokens) in enumerate(zip(records, visual_tokens, strict=True)):
            try:
                texts[at] = self._render(record, tokens, file)
            except RowError as error:
                results[at] = error
        for own_bos in (False, True):
            chosen = [at for at, text in texts.items() if text.own_bos == own_bos]
            encodings = self._backend.encode_batch([texts[at].text for at in chosen], add_special_tokens=not own_bos)
            for at, encoding in zip(chosen, encodings, strict=True):
                try:
                    results[at] = self._finish(records[at], visual_tokens[at], texts[at], encoding, file)
                except RowError as error:
                    results[at] = error
        return results  # type: ignore[return-value]  # every place is filled

    def _render(self, record: Record, visual_tokens: Sequence[int], file: str) -> _Text:
        if len(visual_tokens) != len(record.images):
            expected = f"{len(record.images)} numbers, one per image"
            raise RowError(
                file,
                record.index,
                "image",
                f"{len(visual_tokens)} numbers of visual tokens",
                expected,
                problem="image-count",
            )
        self._refuse_control_tokens(record, file)
        spans = self.template.render(record.turns)
        text = "".join(span.text for span in spans)
        # As ProcessorMixin.apply_chat_template: a text that brings its own begin token gets no second one.
        return _Text(text, spans, bool(self._bos) and text.startswith(self._bos))

    def _finish(self, record: Record, visual_tokens: Sequence[int], text: _Text, encoding: Any, file: str) -> Encoded:
        ids_T, trained_T = _trained_tokens(text, encoding)
        labels_T = np.where(trained_T, ids_T, np.int32(IGNORE_INDEX))
        images = len(visual_tokens)
        if images:
            is_image_T = ids_T == self.image_token_id
            if int(is_image_T.sum()) != images:
                found = f"{int(is_image_T.sum())} {self.image_token} in the rendered text"
                raise RowError(
                    file, record.index, "conversations", found, f"{images}, one per image", problem="image-count"
                )
            repeats_T = np.ones(len(ids_T), dtype=np.int64)
            repeats_T[is_image_T] = visual_tokens
            ids_T, labels_T = np.repeat(ids_T, repeats_T), np.repeat(labels_T, repeats_T)
        cut = 0
        if self.max_length is not None and len(ids_T) > self.max_length:
            keep, images = self._where_to_cut(ids_T, visual_tokens)
            cut = len(ids_T) - keep
            ids_T, labels_T = ids_T[:keep], labels_T[:keep]
        encoded = Encoded(ids_T, labels_T, images, cut)
        if not encoded.supervised:
            found = f"{len(ids_T)} tokens" + (f" after cutting {cut} at max_length {self.max_length}" if cut else "")
            raise RowError(
                file, record.index, "conversations", found, "at least one answer token to train on", problem="no-labels"
            )
        return encoded

    def _where_to_cut(self, ids_T: npt.NDArray[np.int32], visual_tokens: Sequence[int]) -> tuple[int, int]:
        assert self.max_length is not None
        places = np.flatnonzero(ids_T == self.image_token_id)
        start = 0
        for image, count in enumerate(visual_tokens):
            first, last = (places[start], places[start + count - 1]) if count else (0, -1)
            if last >= self.max_length:
                return min(int(first), self.max_length), image
            start += count
        return self.max_length, len(visual_tokens)

    def _refuse_control_tokens(self, record: Record, file: str) -> None:
        if self._control is None:
            return
        for number, turn in enumerate(record.turns):
            found = self._control.search(turn.text)
            if found:
                expected = "text without the tokenizer's special tokens; it would end or restart the conversation there"
                raise RowError(
                    file,
                    record.index,
                    f"conversations[{number}].value",
                    found.group(),
                    expected,
                    problem="control-token",
                )


def _trained_tokens(text: _Text, encoding: Any) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Ids, and which of them are trained."""
    ids_T = np.array(encoding.ids, dtype=np.int32)
    trained_C = np.zeros(len(text.text) + 1, dtype=bool)
    start = 0
    for span in text.spans:
        end = start + len(span.text)
        trained_C[start:end] = span.trained
        start = end
    offsets_T2 = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    ends_T = offsets_T2[:, 1]
    before_T = np.concatenate(([0], np.maximum.accumulate(ends_T)[:-1])) if len(ends_T) else ends_T
    # Some tokenizers trim white space off a token's offsets, so a token of spaces alone looks empty; one that
    # really is empty (a prefix the tokenizer puts in) belongs to the text that follows it.
    wide_T = (ends_T > offsets_T2[:, 0]) | (ends_T > before_T)
    trained_T = trained_C[np.where(wide_T, ends_T - 1, ends_T)]
    in_text_T = np.array([sequence is not None for sequence in encoding.sequence_ids], dtype=bool)
    return ids_T, trained_T & in_text_T
