"""A key/value cache that is written in place.

The stock dynamic cache joins old and new at every token, so a long batch copies itself once a token; here room for the
whole answer is made once, at the first forward pass.
"""

from __future__ import annotations

from typing import Any

import torch


def roomy(cache: Any, length: int) -> None:
    """Let the layers of an empty `DynamicCache` hold up to `length` positions without copying.

    Layers with a sliding window keep their own way: what they hold does not grow with the answer.
    """
    from transformers.cache_utils import DynamicLayer

    class RoomyLayer(DynamicLayer):
        """Keys and values (B, H, S, D) as views of a larger buffer; `select` copies only what is used."""

        keys: torch.Tensor
        values: torch.Tensor
        _key_room: torch.Tensor
        _value_room: torch.Tensor
        _used: int

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
                self._used = 0
                self._room(key_states)
            used, end = self._used, self._used + key_states.shape[2]
            if self._key_room.shape[0] != key_states.shape[0] or end > self._key_room.shape[2]:
                self._room(key_states, kept=used)
            self._key_room[:, :, used:end] = key_states
            self._value_room[:, :, used:end] = value_states
            self._used = end
            self.keys, self.values = self._key_room[:, :, :end], self._value_room[:, :, :end]
            return self.keys, self.values

        def batch_select_indices(self, indices: torch.Tensor) -> None:
            # Into new room at once: selecting first and making room at the next token would copy twice.
            keys, values = self.keys, self.values
            shape = (len(indices), keys.shape[1], self._key_room.shape[2], keys.shape[3])
            key_room, value_room = keys.new_empty(shape), values.new_empty((*shape[:3], values.shape[3]))
            key_room[:, :, : self._used] = keys[indices]
            value_room[:, :, : self._used] = values[indices]
            self._key_room, self._value_room = key_room, value_room
            self.keys, self.values = key_room[:, :, : self._used], value_room[:, :, : self._used]

        def _room(self, like: torch.Tensor, kept: int = 0) -> None:
            room = max(length, kept + like.shape[2])
            shape = (like.shape[0], like.shape[1], room)
            key_room = like.new_empty((*shape, like.shape[3]))
            value_room = like.new_empty((*shape, like.shape[3]))
            if kept:
                key_room[:, :, :kept] = self.keys
                value_room[:, :, :kept] = self.values
            self._key_room, self._value_room = key_room, value_room

    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    if not cache.layers and cache.layer_class_to_replicate is DynamicLayer:
        cache.layer_class_to_replicate = RoomyLayer
