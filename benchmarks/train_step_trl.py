"""The peer of `benchmarks.train_step`: trl's SFTTrainer on a LLaVA directory. Runs in an environment of its own."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def main(request: dict[str, Any]) -> None:
    """Train and print the measured figures as the last line of stdout."""
    import torch
    import transformers
    import trl
    from datasets import Dataset

    torch.set_num_threads(request["threads"])
    rows = json.loads(Path(request["rows"]).read_text())
    roles = {"human": "user", "gpt": "assistant"}

    def messages(row: dict[str, Any]) -> list[dict[str, str]]:
        turns = row["conversations"]
        return [{"role": roles[t["from"]], "content": t["value"].replace("<image>\n", "")} for t in turns]

    def picture(row: dict[str, Any]) -> dict[str, Any]:
        return {"path": str(Path(request["images"]) / row["image"]), "bytes": None}

    # Decoded when a row is fetched, as on our side.
    data = Dataset.from_list([{"messages": messages(row), "images": [picture(row)]} for row in rows])
    data = data.cast_column("images", _images_feature())
    model = transformers.LlavaForConditionalGeneration.from_pretrained(request["model"], dtype=torch.float32)
    for parameter in model.model.vision_tower.parameters():
        parameter.requires_grad_(False)
    processor = transformers.AutoProcessor.from_pretrained(request["model"])
    tokens: list[int] = []
    ends: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            ends.append(time.perf_counter())

    trainer = trl.SFTTrainer(
        model=model,
        processing_class=processor,
        train_dataset=data,
        args=trl.SFTConfig(
            output_dir=request["out"],
            per_device_train_batch_size=request["batch"],
            max_steps=request["steps"],
            max_length=None,
            gradient_checkpointing=False,
            learning_rate=1e-3,
            bf16=False,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_steps=1000,
            disable_tqdm=True,
            dataloader_num_workers=0,
        ),
        callbacks=[Clock()],
    )
    collate = trainer.data_collator

    def counting(examples: list[Any]) -> Any:
        batch = collate(examples)
        tokens.append(int(batch["attention_mask"].sum()))
        return batch

    trainer.data_collator = counting
    trainer.train()
    skip = request["warm_up"]
    seconds = ends[-1] - ends[skip - 1]
    steps = len(ends) - skip
    figures = {
        "tokens_per_second": sum(tokens[skip : len(ends)]) / seconds,
        "samples_per_second": steps * request["batch"] / seconds,
        "step_seconds": seconds / steps,
        "trl": trl.__version__,
        "transformers": transformers.__version__,
    }
    print(json.dumps(figures))


def _images_feature() -> Any:
    from datasets import Image, List

    return List(Image())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
