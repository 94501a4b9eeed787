"""What every area's tests share: tiny random models in ordinary hub directories, a small demo world, a recipe for them.

All of it is made once per session, seeded, and small enough to be ready in seconds. Heavy libraries are imported
inside the fixtures, so that collecting light tests stays quick.
"""

from __future__ import annotations

import json
import os
import signal
import socketserver
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from llava.processes import yield_idle_cores
from tests.s3_server import moto_s3, rclone_s3  # noqa: F401  (fixtures)

# The same examples each time, and as long as a busy machine takes: a failure is a change's. HYPOTHESIS_PROFILE=explore
# looks for new ones.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # set before any fork, or the tokenizers library warns
# Servers of tests: an answer's headers and body are two packets, and each would wait 40 ms for a delayed ACK;
# `shutdown` looks every 10 ms, not every 500. Both are most of the time that hundreds of small servers take.
socketserver.StreamRequestHandler.disable_nagle_algorithm = True
socketserver.BaseServer.serve_forever.__defaults__ = (0.01,)
yield_idle_cores()  # tests start processes beside one another
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that runs us in the background has us ignore it, and so would the processes that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

SIDE = 48  # pixels; what demo.world draws
CORPUS = (
    "A chat between a curious user and an artificial intelligence assistant. USER: ASSISTANT: Human: Assistant:",
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "Describe the image concisely. What colour is the circle? What shape is at the top left?",
    "How many shapes are there?",
    "There is a small red circle at the top left and a large blue square in the center. Yes. No. one two three four",
    "The picture shows an orange star on the right, a green triangle at the bottom, a purple ring and a yellow cross.",
)


@dataclass(frozen=True)
class TinyWorld:
    """A demo world on disk with LLaVA rows made straight from its captions.

    Attributes:
        root: holds `train2017/`, `val2017/`, `annotations/`; image references are relative to it.
        pretrain_json: one question, one caption a row.
        instruct_json: several turns a row; every eighth row is text only.
        questions: the held-out benchmark, `annotations/questions_val.jsonl`.
    """

    root: Path
    pretrain_json: Path
    instruct_json: Path
    questions: Path

    @property
    def images_uri(self) -> str:
        return str(self.root)


@pytest.fixture(scope="session")
def tiny_clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP (full model, as openai/clip-* ships): 48 px, patch 12, so 16 visual tokens; towers 32 wide."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    folder = tmp_path_factory.mktemp("tiny-clip")
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    config = CLIPConfig(
        vision_config={**tower, "num_hidden_layers": 3, "image_size": SIDE, "patch_size": 12},
        text_config={**tower, "num_hidden_layers": 1, "vocab_size": 64, "max_position_embeddings": 16},
        projection_dim=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="session")
def tiny_llama_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random 2-layer Llama, 48 wide, with a BPE tokenizer of Llama's kind (metaspace, byte fallback, BOS, EOS)."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny-llama")
    tokenizer = train_llama_tokenizer(CORPUS)
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def train_llama_tokenizer(corpus: tuple[str, ...], *, vocabulary: int = 600, **options: Any) -> Any:
    """A `LlamaTokenizer` trained on `corpus`: `<unk>`, `<s>`, `</s>`, 256 byte pieces, then learnt merges."""
    from tokenizers import Tokenizer, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import LlamaTokenizer

    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    learner = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True))
    learner.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    learner.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=specials, show_progress=False)
    )
    model = json.loads(learner.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return LlamaTokenizer(vocab=model["vocab"], merges=merges, **{"legacy": False, "model_max_length": 512, **options})


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """64 training and 12 held-out scenes, with one pre-training and one instruction row a training scene."""
    from demo.world import write_world

    root = tmp_path_factory.mktemp("tiny-world")
    write_world(root, train=64, held_out=12, seed=7)
    captions: dict[int, list[str]] = {}
    for row in json.loads((root / "annotations" / "captions_train2017.json").read_text())["annotations"]:
        captions.setdefault(row["image_id"], []).append(row["caption"])
    pretrain: list[dict[str, Any]] = []
    instruct: list[dict[str, Any]] = []
    for index, (image_id, texts) in enumerate(sorted(captions.items())):
        image = f"train2017/{image_id:012d}.jpg"
        pretrain.append(
            {
                "id": f"{image_id:012d}",
                "image": image,
                "conversations": turns("Describe the image concisely.\n<image>", texts[0]),
            }
        )
        if index % 8 == 7:
            instruct.append(
                {"id": f"text-{index}", "model": "", "conversations": turns("How many shapes are there?", texts[1])}
            )
            continue
        follow_up = turns("Say it in other words.", texts[1]) + turns("And again?", texts[2]) * (index % 3)
        instruct.append(
            {
                "id": str(image_id),
                "image": image,
                "conversations": turns("<image>\nWhat is shown?", texts[0]) + follow_up,
            }
        )
    (root / "pretrain.json").write_text(json.dumps(pretrain))
    (root / "instruct.json").write_text(json.dumps(instruct))
    return TinyWorld(root, root / "pretrain.json", root / "instruct.json", root / "annotations" / "questions_val.jsonl")


def turns(question: str, answer: str) -> list[dict[str, str]]:
    """One exchange in LLaVA's form."""
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory, tiny_clip_dir: Path, tiny_llama_dir: Path) -> Path:
    """A recipe file for the tiny models: 6 steps of 8 rows a stage, fp32, ZeRO 0."""
    common = {
        "image_aspect_ratio": "pad",
        "max_length": 192,
        "max_steps": 6,
        "global_batch_size": 8,
        "micro_batch_size": 4,
        "packing": False,
        "pack_tokens": 256,
        "pack_images": 8,
        "precision": "fp32",
        "zero_stage": 0,
        "loader_workers": 1,
        "log_every_steps": 1,
        "save_every_steps": 2,
        "sample_generations": 0,
        "max_bad_rows": 0.0,
    }
    recipe = {
        "name": "test-tiny",
        "model": {"vision_tower": str(tiny_clip_dir), "language_model": str(tiny_llama_dir), "projector": "mlp2x_gelu"},
        "pretrain": {**common, "template": "plain", "learning_rate": 1e-2},
        "finetune": {**common, "template": "v1", "learning_rate": 2e-3, "projector_learning_rate": 5e-3},
    }
    path = tmp_path_factory.mktemp("tiny-recipe") / "test-tiny.yaml"
    path.write_text(json.dumps(recipe, indent=2))  # JSON is YAML
    return path
