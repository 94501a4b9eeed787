"""A saved tiny LLaVA and a saved stage-1 projector, as the training stages leave them, without training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class HubModel:
    """`model`: a hub directory; `projector`: stage 1's result with its manifest."""

    model: Path
    projector: Path


@pytest.fixture(scope="session")
def hub_model(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> HubModel:
    """Random weights, scaled so that answers depend on the picture and on the question."""
    import torch

    from llava.config import load_recipe
    from llava.data.templates import get_template
    from llava.manifest import Manifest, write_manifest
    from llava.model.build import build_model, build_processor
    from llava.model.saving import save_model, save_projector

    folder = tmp_path_factory.mktemp("hub-model")
    recipe = load_recipe(str(tiny_recipe))
    processor = build_processor(recipe.model, get_template("v1"), "pad")
    model = build_model(recipe.model, tokenizer=processor.tokenizer)
    save_projector(model, str(folder / "projector"))
    manifest = Manifest(kind="projector", stage="pretrain", recipe=recipe.model_dump(mode="json"))
    write_manifest(str(folder / "projector"), manifest)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "language_model.layers" in name and "proj" in name:
                parameter.mul_(8)
            elif "multi_modal_projector" in name:
                parameter.mul_(4)
    save_model(model, processor, str(folder / "model"))
    return HubModel(folder / "model", folder / "projector")
