"""The peer of `benchmarks.gpu_train`: trl's SFTTrainer on a LLaVA of the same shape, rows and images.

Set up as its documentation has it for vision language models: padded batches through the processor, bf16, fused AdamW.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

WARM_UP = 3


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Train; speeds over the steps after the warm-up."""
    import datasets
    import transformers
    import trl
    from datasets import Dataset, Image, List

    from llava.config import load_recipe
    from llava.data.templates import get_template
    from llava.model.build import build_model, build_processor

    on_gpu = torch.cuda.is_available()
    recipe = load_recipe(request["recipe"])
    processor = build_processor(recipe.model, get_template("v1"), "pad")
    processor.chat_template = get_template("v1").chat_template()
    model: Any = build_model(
        recipe.model, tokenizer=processor.tokenizer, dtype=torch.bfloat16, device="cuda" if on_gpu else "cpu"
    )
    # A stock model: our attention is of no use to a padded batch.
    model.model.language_model.config._attn_implementation = "sdpa"
    model.requires_grad_(False)
    more: dict[str, Any] = {}
    if request["trained"] == "lora":
        from peft import LoraConfig

        targets = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
        more["peft_config"] = LoraConfig(r=128, lora_alpha=256, lora_dropout=0.05, target_modules=targets)
    else:
        model.model.multi_modal_projector.requires_grad_(True)
    model.train()
    rows = json.loads(Path(request["rows"]).read_text())
    roles = {"human": "user", "gpt": "assistant"}

    def messages(row: dict[str, Any]) -> list[dict[str, str]]:
        said = [(t["from"], t["value"].replace("<image>\n", "").replace("<image>", "")) for t in row["conversations"]]
        return [{"role": roles[who], "content": text} for who, text in said]

    def image(row: dict[str, Any]) -> dict[str, Any]:
        return {"path": str(Path(request["images"]) / row["image"]), "bytes": None}

    # Without a fingerprint of our own, datasets pickles all it can reach to make one.
    datasets.fingerprint.Hasher.hash = staticmethod(lambda value: "benchmark")
    data = Dataset.from_list([{"messages": messages(row), "images": [image(row)]} for row in rows])
    data = data.cast_column("images", List(Image()))
    ends: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if on_gpu:
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    trainer = trl.SFTTrainer(
        model=model,
        processing_class=processor,
        train_dataset=data,
        args=trl.SFTConfig(
            output_dir=request["out"],
            per_device_train_batch_size=request["batch"],
            gradient_accumulation_steps=2,
            max_steps=request["steps"],
            max_length=None,
            gradient_checkpointing=bool(request.get("checkpointing")),
            gradient_checkpointing_kwargs={"use_reentrant": False},
            learning_rate=1e-5,
            bf16=True,
            use_cpu=not on_gpu,
            optim="adamw_torch_fused",
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            dataloader_num_workers=8 if on_gpu else 0,
        ),
        callbacks=[Clock()],
        **more,
    )
    tokens: list[int] = []
    step = trainer.training_step

    def counting(model: Any, inputs: dict[str, Any], *rest: Any, **others: Any) -> Any:
        tokens.append(int(inputs["attention_mask"].sum()))
        return step(model, inputs, *rest, **others)

    trainer.training_step = counting
    trainer.train()
    spent, steps = ends[-1] - ends[WARM_UP - 1], len(ends) - WARM_UP
    per_step = len(tokens) // len(ends)
    return {
        "samples_per_second": steps * request["batch"] * per_step / spent,
        "tokens_per_second": sum(tokens[WARM_UP * per_step :]) / spent,
        "step_seconds": spent / steps,
        "memory_gib": {"peak": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None},
        "batch": request["batch"],
        "checkpointing": bool(request.get("checkpointing")),
        "losses": [round(entry["loss"], 4) for entry in trainer.state.log_history if "loss" in entry],
        "trl": trl.__version__,
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))), flush=True)
