"""AnyRes (LLaVA-NeXT): tiles through the stock class, the same forward, packing and saving."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from llava.model import saving
from llava.model.features import image_features
from llava.model.forward import supervised_logits
from llava.model.freezing import set_trainable
from llava.model.multimodal import IMAGE_TOKEN_INDEX, prepare_inputs_labels_for_multimodal
from tests.model.batches import TestBatch
from tests.model.test_saving import GOLDEN, keys_of

Built = Callable[..., tuple[Any, Any]]
SIZES = ((60, 100), (96, 40), (48, 48))  # height, width


@pytest.fixture(scope="module")
def pair(built: Built) -> tuple[Any, Any]:
    return built(architecture="llava_next")


def inputs_of(processor: Any, text: str, sizes: Any) -> Any:
    images = [Image.effect_noise((w, h), 60).convert("RGB") for h, w in sizes]
    return processor(images=images, text=text, return_tensors="pt")


def as_pack(model: Any, rows: list[Any]) -> TestBatch:
    """Rows from the processor, end to end; the last four ids of each are the answer."""
    from llava.model.features import tiles_of

    ids = [row.input_ids[0].tolist() for row in rows]
    bounds = [0]
    for row in ids:
        bounds.append(bounds[-1] + len(row))
    tiles = []
    for row in rows:
        for pixels, size in zip(row.pixel_values, row.image_sizes.tolist(), strict=True):
            tiles.append(pixels[: tiles_of(model.config, size)])
    index = [end - k for end in bounds[1:] for k in (5, 4, 3, 2)]
    flat = torch.tensor([[token for row in ids for token in row]])
    return TestBatch(
        input_ids_BT=flat,
        position_ids_BT=torch.cat([torch.arange(len(row)) for row in ids])[None],
        attention_mask_BT=None,
        cu_seqlens_N=torch.tensor(bounds, dtype=torch.int32),
        max_seqlen=max(map(len, ids)),
        pixel_values_ICHW=torch.cat(tiles),
        has_images=True,
        image_sizes_I2=torch.cat([row.image_sizes for row in rows]),
        target_index_K=torch.tensor(index),
        target_ids_K=flat[0, torch.tensor(index) + 1],
    )


def test_class_is_stock_and_tokens_agree_with_the_processor(pair: Any) -> None:
    from transformers import LlavaNextForConditionalGeneration

    model, processor = pair
    assert type(model) is LlavaNextForConditionalGeneration
    for size in SIZES:
        inputs = inputs_of(processor, "<image>\nhello", [size])
        features = image_features(model, inputs.pixel_values[0], inputs.image_sizes)
        assert len(features) == 1
        assert features[0].shape[0] == int((inputs.input_ids == model.config.image_token_index).sum())


def test_packed_rows_are_what_the_stock_class_computes(pair: Any) -> None:
    model, processor = pair
    rows = [
        inputs_of(processor, f"USER: <image>\nWhat is shown {i}? ASSISTANT: a red circle", [size])
        for i, size in enumerate(SIZES)
    ]
    rows.append(inputs_of(processor, "<image> and <image> the same? ASSISTANT: Yes. No.", SIZES[:2]))
    with torch.no_grad():
        ours = supervised_logits(model, as_pack(model, rows))
        stock = torch.cat([model(**row, use_cache=False).logits[0, -5:-1] for row in rows])
    torch.testing.assert_close(ours, stock, rtol=0, atol=1e-5)


def test_stage_1_trains_projector_and_newline(pair: Any) -> None:
    model, processor = pair
    set_trainable(model, "pretrain")
    batch = as_pack(model, [inputs_of(processor, "<image>\nhello there, a red circle", [SIZES[0]])])
    supervised_logits(model, batch).logsumexp(-1).sum().backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert with_gradient == {
        "model.image_newline",
        *(n for n, _ in model.named_parameters() if "multi_modal_projector" in n),
    }
    model.zero_grad()
    batch.has_images, batch.image_sizes_I2 = False, None
    batch.input_ids_BT = batch.input_ids_BT.clamp(max=500)
    supervised_logits(model, batch).logsumexp(-1).sum().backward()
    assert model.model.image_newline.grad is not None and not model.model.image_newline.grad.any()
    model.zero_grad()


def test_saved_and_loaded_by_stock_classes(pair: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, processor = pair
    saving.save_model(model, processor, str(tmp_path / "m"))
    assert keys_of(tmp_path / "m") == json.loads(GOLDEN.read_text())["llava_next"]
    stock, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not any(report.values()), report
    again = AutoProcessor.from_pretrained(tmp_path / "m")
    assert again.image_processor.image_grid_pinpoints == [[48, 96], [96, 48], [96, 96], [144, 48], [48, 144]]
    inputs = inputs_of(again, "<image>\nhello", [SIZES[0]])
    with torch.no_grad():
        torch.testing.assert_close(stock(**inputs).logits, model(**inputs).logits, rtol=0, atol=1e-5)
    saving.save_projector(model, str(tmp_path / "p"))
    ours = saving.load_model(str(tmp_path / "m"))
    with torch.no_grad():
        ours.model.image_newline.zero_()
    saving.load_projector(ours, str(tmp_path / "p"))
    assert torch.equal(ours.model.image_newline, model.model.image_newline)


def test_original_form_of_merging(pair: Any) -> None:
    model, processor = pair
    inputs = inputs_of(processor, "<image> and <image>", SIZES[:2])
    short = torch.tensor([[1, IMAGE_TOKEN_INDEX, 5, IMAGE_TOKEN_INDEX]])
    from llava.model.features import tiles_of

    sizes = inputs.image_sizes.tolist()
    images = [pixels[: tiles_of(model.config, size)] for pixels, size in zip(inputs.pixel_values, sizes, strict=True)]
    with torch.no_grad():
        out = prepare_inputs_labels_for_multimodal(model, short, None, None, None, None, [images], [sizes])
        features = image_features(model, torch.cat(images), inputs.image_sizes)
    embed = model.get_input_embeddings()
    assert out.inputs_embeds is not None
    expected = torch.cat([embed(torch.tensor([1])), features[0], embed(torch.tensor([5])), features[1]])
    torch.testing.assert_close(out.inputs_embeds[0], expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="needs image_sizes"):
        prepare_inputs_labels_for_multimodal(model, short, None, None, None, None, [images])


def test_a_tile_too_many_is_an_error(pair: Any) -> None:
    model, processor = pair
    inputs = inputs_of(processor, "<image>", [SIZES[0]])
    with pytest.raises(ValueError, match="a tile too many or too few"):
        image_features(model, inputs.pixel_values[0][:-1], inputs.image_sizes)
