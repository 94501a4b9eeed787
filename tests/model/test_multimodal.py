"""`prepare_inputs_labels_for_multimodal`: the original's semantics, and every row its own images."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.model.features import image_features
from llava.model.multimodal import IGNORE_INDEX, IMAGE_TOKEN_INDEX, prepare_inputs_labels_for_multimodal

Built = Callable[..., tuple[Any, Any]]
V = 16  # visual tokens of an image


@pytest.fixture(scope="module")
def model(built: Built) -> Any:
    return built()[0]


def pixels(seed: int, *tiles: int) -> torch.Tensor:
    return torch.randn(*tiles, 3, 48, 48, generator=torch.Generator().manual_seed(seed))


def call(model: Any, ids: list[list[int]], images: Any, **more: Any) -> Any:
    span = max(len(row) for row in ids)
    padded = torch.tensor([row + [0] * (span - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (span - len(row)) for row in ids])
    labels = torch.where(mask.bool(), padded, IGNORE_INDEX)
    arguments = {
        "position_ids": torch.zeros(0),
        "attention_mask": mask,
        "past_key_values": None,
        "labels": labels,
        **more,
    }
    return prepare_inputs_labels_for_multimodal(model, padded, images=images, **arguments)


def test_signature_is_the_seeds_when_bound(model: Any) -> None:
    bound = functools.partial(prepare_inputs_labels_for_multimodal, model)
    names = [p.name for p in inspect.signature(bound).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert names == [
        "input_ids",
        "position_ids",
        "attention_mask",
        "past_key_values",
        "labels",
        "images",
        "image_sizes",
    ]


def test_rows_with_different_numbers_of_images(model: Any) -> None:
    a, b, c = pixels(1), pixels(2), pixels(3)
    ids = [[1, IMAGE_TOKEN_INDEX, 7, 8], [1, 5, IMAGE_TOKEN_INDEX, 6, IMAGE_TOKEN_INDEX, 9], [1, 4]]
    out = call(model, ids, [[a], [b, c], None])
    fa, fb, fc = image_features(model, torch.stack([a, b, c]))
    embed = model.get_input_embeddings()
    w = lambda *tokens: embed(torch.tensor(tokens))  # noqa: E731
    rows = [torch.cat([w(1), fa, w(7, 8)]), torch.cat([w(1, 5), fb, w(6), fc, w(9)]), w(1, 4)]
    lengths = [len(row) for row in rows]
    assert lengths == [V + 3, 2 * V + 4, 2]
    assert out.input_ids is None
    assert out.inputs_embeds.shape == (3, 2 * V + 4, 48)
    for i, row in enumerate(rows):
        torch.testing.assert_close(out.inputs_embeds[i, : lengths[i]], row, rtol=0, atol=1e-6)
        assert not out.inputs_embeds[i, lengths[i] :].any()
        assert out.position_ids[i].tolist() == [*range(lengths[i]), *[0] * (max(lengths) - lengths[i])]
        assert out.attention_mask[i].sum() == lengths[i]
        assert out.attention_mask[i, : lengths[i]].all()
    ignored = [IGNORE_INDEX] * V
    assert out.labels[0, : lengths[0]].tolist() == [1, *ignored, 7, 8]
    assert out.labels[1].tolist() == [1, 5, *ignored, 6, *ignored, 9]
    assert out.labels[2].tolist() == [1, 4, *[IGNORE_INDEX] * (2 * V + 2)]


def test_left_padding_and_input_padding_on_either_side(model: Any) -> None:
    ids = torch.tensor([[0, 0, 1, 5], [1, IMAGE_TOKEN_INDEX, 6, 7]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]], dtype=torch.bool)
    out = prepare_inputs_labels_for_multimodal(
        model, ids, ids, mask, "cache", ids.clone(), [None, [pixels(1)]], padding_side="left"
    )
    assert out.past_key_values == "cache"
    assert out.attention_mask is not None and out.position_ids is not None and out.labels is not None
    assert out.inputs_embeds is not None
    assert out.attention_mask.dtype == torch.bool
    assert out.attention_mask.int().tolist() == [[0] * (V + 1) + [1, 1], [1] * (V + 3)]
    assert out.position_ids[0].tolist() == [0] * (V + 1) + [0, 1]
    assert out.labels[0].tolist() == [IGNORE_INDEX] * (V + 1) + [1, 5]
    assert torch.equal(out.inputs_embeds[0, -2:], model.get_input_embeddings()(torch.tensor([1, 5])))


def test_truncation_is_from_the_right_even_inside_an_image(model: Any) -> None:
    ids = [[1, IMAGE_TOKEN_INDEX, 7, 8], [1, 2, 3]]
    whole = call(model, ids, [[pixels(1)], None])
    cut = call(model, ids, [[pixels(1)], None], max_length=10)
    assert cut.inputs_embeds.shape[1] == 10
    assert torch.equal(cut.inputs_embeds[0], whole.inputs_embeds[0, :10])
    assert cut.labels[0].tolist() == [1] + [IGNORE_INDEX] * 9
    assert cut.labels[1].tolist() == [1, 2, 3] + [IGNORE_INDEX] * 7
    assert cut.attention_mask.sum(1).tolist() == [10, 3]


def test_limits_and_side_may_stand_in_the_config(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.config, "tokenizer_model_max_length", 12, raising=False)
    monkeypatch.setattr(model.config, "tokenizer_padding_side", "left", raising=False)
    out = call(model, [[1, IMAGE_TOKEN_INDEX, 7], [1, 2]], [[pixels(1)], []])
    assert out.inputs_embeds.shape[1] == 12
    assert out.attention_mask[1].tolist() == [0] * 10 + [1, 1]


@pytest.mark.parametrize("missing", ["position_ids", "attention_mask", "labels"])
def test_what_was_none_comes_back_as_none(missing: str, model: Any) -> None:
    ids = [[1, IMAGE_TOKEN_INDEX, 7], [IMAGE_TOKEN_INDEX, 2, 3]]
    images = torch.stack([pixels(1), pixels(2)])
    whole, part = call(model, ids, images), call(model, ids, images, **{missing: None})
    for name in ("position_ids", "attention_mask", "labels"):
        if name == missing:
            assert getattr(part, name) is None
        else:
            assert torch.equal(getattr(part, name), getattr(whole, name))
    assert torch.equal(part.inputs_embeds, whole.inputs_embeds)


def test_flat_batch_with_a_dummy_for_a_text_row(model: Any) -> None:
    """A zero image of a text-only row, as the original has it: no token, but the projector stays in the graph."""
    model.zero_grad()
    model.requires_grad_(True)
    only_text = call(model, [[1, 5, 6]], torch.zeros(1, 3, 48, 48))
    assert torch.equal(only_text.inputs_embeds[0], model.get_input_embeddings()(torch.tensor([1, 5, 6])))
    only_text.inputs_embeds.sum().backward()
    assert torch.count_nonzero(model.model.multi_modal_projector.linear_1.weight.grad) == 0
    model.zero_grad()
    model.requires_grad_(False)


def test_the_originals_flat_list_has_a_dummy_for_each_row_without_an_image(model: Any) -> None:
    """Rows with 1, 0 and 2 images: the original walks 4 features, one of them for the row without `<image>`."""
    a, dummy, b, c = (pixels(seed) for seed in range(4))
    ids = [[1, IMAGE_TOKEN_INDEX, 7], [1, 4], [1, IMAGE_TOKEN_INDEX, 6, IMAGE_TOKEN_INDEX, 9]]
    nested = call(model, ids, [[a], None, [b, c]])
    # By hand, as its loop does it: one counter over the batch, which a row without an image moves on too.
    features, counter = image_features(model, torch.stack([a, dummy, b, c])), 0
    embed = model.get_input_embeddings()
    for flat in ([a, dummy, b, c], torch.stack([a, dummy, b, c])):
        out = call(model, ids, flat)
        assert torch.equal(out.inputs_embeds, nested.inputs_embeds)
        assert torch.equal(out.labels, nested.labels)
        assert torch.equal(out.attention_mask, nested.attention_mask)
    for row, wanted in enumerate(ids):
        pieces, words = [], []
        for token in wanted:
            if token == IMAGE_TOKEN_INDEX:
                pieces += [features[counter]]
                counter += 1
            else:
                pieces += [embed(torch.tensor([token]))]
            words.append(token)
        counter += IMAGE_TOKEN_INDEX not in words
        merged = torch.cat(pieces)
        torch.testing.assert_close(out.inputs_embeds[row, : len(merged)], merged, rtol=0, atol=1e-6)
    assert counter == 4


def test_image_sizes_follow_the_flat_list(built: Built) -> None:
    """AnyRes: the dummy has tiles and a size of its own, which the row after it must not take."""
    model, _ = built(architecture="llava_next")
    sizes = [(40, 96), (40, 96), (96, 40)]
    tiles = [pixels(seed, 3) for seed in range(3)]
    ids = [[1, IMAGE_TOKEN_INDEX, 7], [1, 4], [1, IMAGE_TOKEN_INDEX, 6]]
    flat = call(model, ids, tiles, image_sizes=sizes)
    nested = call(model, ids, [[tiles[0]], None, [tiles[2]]], image_sizes=[[sizes[0]], None, [sizes[2]]])
    assert torch.equal(flat.inputs_embeds, nested.inputs_embeds)


def test_flat_images_in_the_order_of_placeholders(model: Any) -> None:
    a, b, c = pixels(1), pixels(2), pixels(3)
    ids = [[1, IMAGE_TOKEN_INDEX, IMAGE_TOKEN_INDEX], [1, IMAGE_TOKEN_INDEX]]
    flat, nested = call(model, ids, torch.stack([a, b, c])), call(model, ids, [[a, b], [c]])
    assert torch.equal(flat.inputs_embeds, nested.inputs_embeds)
    assert torch.equal(call(model, ids, [a, b, c]).inputs_embeds, nested.inputs_embeds)


def test_tiles_of_an_image_are_joined(model: Any) -> None:
    """x.flatten(0, 1): two tiles of 16 tokens are 32 visual tokens of one image."""
    tiles, single = pixels(4, 2), pixels(5)
    out = call(model, [[1, IMAGE_TOKEN_INDEX, 7], [1, IMAGE_TOKEN_INDEX]], [[tiles], [single]])
    features = image_features(model, torch.cat([tiles, single[None]]))
    torch.testing.assert_close(out.inputs_embeds[0, 1 : 1 + 2 * V], torch.cat(features[:2]), rtol=0, atol=1e-6)
    torch.testing.assert_close(out.inputs_embeds[1, 1 : 1 + V], features[2], rtol=0, atol=1e-6)
    five_d = call(model, [[1, IMAGE_TOKEN_INDEX, 7]], tiles[None])
    torch.testing.assert_close(five_d.inputs_embeds[0], out.inputs_embeds[0], rtol=0, atol=1e-6)


def test_no_images_or_one_decoding_step_passes_through(model: Any) -> None:
    ids = torch.tensor([[1, 5, 6]])
    out = prepare_inputs_labels_for_multimodal(model, ids, None, None, "cache", None, None)
    assert out.input_ids is ids and out.inputs_embeds is None and out.past_key_values == "cache"
    step = torch.tensor([[5], [6]])
    mask = torch.ones(2, 9)
    out = prepare_inputs_labels_for_multimodal(model, step, None, mask, "cache", None, torch.zeros(2, 3, 48, 48))
    assert out.input_ids is step and out.attention_mask is mask and out.inputs_embeds is None


@pytest.mark.parametrize(
    ("ids", "images", "message"),
    [
        ([[1, IMAGE_TOKEN_INDEX]], None, "images is None"),
        ([[1, IMAGE_TOKEN_INDEX], [1, 2]], [[], []], "row 0 has 1 image placeholders .* and 0 images"),
        ([[1, 2], [1, IMAGE_TOKEN_INDEX]], [[0], [1]], "row 0 has 0 image placeholders .* and 1 images"),
        (
            [[1, IMAGE_TOKEN_INDEX, IMAGE_TOKEN_INDEX], [1, 2]],
            "flat2",
            "row 0 has 2 image placeholders .* its own list",
        ),
        ([[1, IMAGE_TOKEN_INDEX]], "flat2", "2 images for 1 image placeholders"),
        ([[1, IMAGE_TOKEN_INDEX]], [[0], [1]], "images has 2 rows for 1 rows"),
    ],
)
def test_counts_that_do_not_match_are_errors(ids: Any, images: Any, message: str, model: Any) -> None:
    if images == "flat2":
        images = torch.zeros(2, 3, 48, 48)
    elif images is not None:
        images = [[pixels(i) for i in row] for row in images]
    with pytest.raises(ValueError, match=message):
        call(model, ids, images)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.lists(st.sampled_from([3, 4, 5, IMAGE_TOKEN_INDEX]), min_size=1, max_size=6), min_size=1, max_size=4
    ),
    side=st.sampled_from(["left", "right"]),
    limit=st.one_of(st.none(), st.integers(1, 60)),
)
def test_any_rows(model: Any, rows: list[list[int]], side: Any, limit: int | None) -> None:
    """Whatever the rows: lengths, masks, positions and labels agree, and each row is what it is when alone."""
    counter = iter(range(100))
    images = [[pixels(next(counter)) for token in row if token == IMAGE_TOKEN_INDEX] for row in rows]
    if max(map(len, rows)) == 1 and not any(images):
        rows[0] = rows[0] + [3]
    with torch.no_grad():
        out = call(model, rows, images, padding_side=side, max_length=limit)
        lengths = [min(sum(V if t == IMAGE_TOKEN_INDEX else 1 for t in row), limit or 10**6) for row in rows]
        assert out.attention_mask.sum(1).tolist() == lengths
        assert out.inputs_embeds.shape[1] == max(lengths)
        for i, length in enumerate(lengths):
            real = out.attention_mask[i].bool()
            assert out.position_ids[i, real].tolist() == list(range(length))
            kept = [
                t
                for row_token in rows[i]
                for t in ([IGNORE_INDEX] * V if row_token == IMAGE_TOKEN_INDEX else [row_token])
            ][:length]
            assert out.labels[i, real].tolist() == kept
            assert (out.labels[i, ~real] == IGNORE_INDEX).all()
            embed = model.get_input_embeddings()
            own = iter(images[i])
            alone = torch.cat(
                [
                    image_features(model, next(own)[None])[0] if t == IMAGE_TOKEN_INDEX else embed(torch.tensor([t]))
                    for t in rows[i]
                ]
            )
            torch.testing.assert_close(out.inputs_embeds[i, real], alone[:length], rtol=0, atol=1e-5)


def test_equals_the_expanded_placeholders_of_training(model: Any) -> None:
    """One -200 here and 16 `<image>` ids there are the same model input."""
    from llava.model.forward import merged_embeddings
    from tests.model.batches import make_row, packed

    row = make_row(model, text=9, images=2, seed=3)
    image = model.config.image_token_index
    short = [t for i, t in enumerate(row.ids) if t != image or row.ids[i - 1] != image]
    place = short.index(image)
    short[place : place + 1] = [IMAGE_TOKEN_INDEX, IMAGE_TOKEN_INDEX]
    out = call(model, [short], [row.pixels])
    torch.testing.assert_close(out.inputs_embeds, merged_embeddings(model, packed([row])), rtol=0, atol=1e-6)
