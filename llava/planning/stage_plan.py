"""What a recipe costs on given GPUs: memory by part, the pack that fits, steps, FLOPs, hours and money.

Nothing is built or downloaded: sizes come from configurations. What is an assumption (MFU, price, the text lengths of
the published files) is shown as one.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from llava.config import ModelRecipe, Recipe, TrainRecipe
from llava.errors import SettingsError
from llava.planning import published
from llava.planning.communication import Links, offload_seconds, traffic
from llava.planning.corpora import Corpus
from llava.planning.fill import Fill, fill_of
from llava.planning.flops import Flops, Stage, step_flops
from llava.planning.gpus import GIB, Gpu
from llava.planning.host import Host, host
from llava.planning.memory import Memory, largest_pack, memory, trained_parameters
from llava.planning.remedies import Remedy, remedies
from llava.planning.shape import Shape


@dataclass(frozen=True)
class StagePlan:
    """One stage on the GPUs asked for. Bytes, FLOPs, hours, US dollars.

    Attributes:
        hours: computing, and what of the communication (with the host too, where states lie there) it does not hide.
        remedies: where it does not fit, what would.
    """

    stage: Stage
    corpus: Corpus
    tokens_per_row: float
    trained_parameters: int
    micro_tokens: int
    memory: Memory
    fits: bool
    largest_pack: int
    steps: int
    flops: Flops
    hours: float
    communication_hours: float
    cost: float
    fill: Fill
    host: Host
    remedies: list[Remedy]
    by_zero: dict[int, Memory]
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: every figure, with the totals that the parts add up to."""
        whole = asdict(self)
        whole["memory"]["total"] = self.memory.total
        whole["host"]["memory"] = self.host.memory
        for remedy, listed in zip(self.remedies, whole["remedies"], strict=True):
            lora = remedy.fields.get("lora")
            listed["fields"] = {**remedy.fields, **({"lora": lora.model_dump(mode="json")} if lora else {})}
        whole["flops"]["total"], whole["flops"]["hardware"] = self.flops.total, self.flops.hardware
        whole["by_zero"] = {str(stage): {**asdict(need), "total": need.total} for stage, need in self.by_zero.items()}
        return whole


def shape_of(recipe: ModelRecipe) -> Shape:
    """The sizes of a recipe's model, from the published table or the parts' own configurations.

    Raises:
        SettingsError: a part's configuration cannot be read or is of the wrong kind.
    """
    if (known := published.published_shape(recipe)) is not None:
        return known
    from llava.model import projector_kinds, sources

    vision: Any = published.tower(recipe.vision_tower) or sources.vision_config(recipe.vision_tower)
    text: Any = published.language_model(recipe.language_model) or sources.text_config(recipe.language_model)
    projector_kinds.check_widths(recipe.projector, vision.hidden_size, text.hidden_size)
    return published.joined_shape(recipe, vision, text)


def visual_tokens_and_tiles(shape: Shape) -> tuple[int, int]:
    """Tokens and tiles of a typical image: the square itself, or for AnyRes a 4:3 photograph in 2 x 2 tiles.

    A 640 x 480 photograph keeps 3/4 of the grid's rows (LLaVA-NeXT cuts the padding off), each row ending in a newline.
    """
    if not shape.anyres:
        return shape.visual_tokens, 1
    side = 2 * math.isqrt(shape.patches)
    rows = round(side * 3 / 4)
    return shape.visual_tokens + rows * (side + 1), 5


def plan_stage(
    recipe: Recipe,
    stage: Stage,
    shape: Shape,
    corpus: Corpus,
    *,
    gpu: Gpu,
    gpus: int,
    mfu: float,
    price: float,
    per_node: int = 8,
    network: float = 50e9,
) -> StagePlan:
    """Plan one stage.

    Args:
        recipe: the whole recipe.
        stage: pretrain or finetune.
        shape: `shape_of(recipe.model)`.
        corpus: averages of its data.
        gpu, gpus: the device and how many.
        mfu: share of the peak spent on useful work; recomputation is charged on top of it.
        price: US dollars an hour and GPU.
        per_node: GPUs in a node.
        network: bytes a second of a node to the others.
    """
    train: TrainRecipe = getattr(recipe, stage)
    per_image, tiles = visual_tokens_and_tiles(shape)
    row = min(float(train.max_length), corpus.text_tokens + corpus.images * per_image)
    supervised_share = min(1.0, corpus.supervised / row)
    tokens_per_tile = row / max(corpus.images * tiles, 1e-9)
    micro = train.pack_tokens if train.packing else train.micro_batch_size * train.max_length
    most_tiles = train.pack_images if train.packing else train.micro_batch_size * tiles
    load = {
        "tokens": micro,
        "images": min(math.ceil(micro / tokens_per_tile), most_tiles),
        "positions": math.ceil(micro * supervised_share),
    }
    need = memory(shape, stage, train, gpus=gpus, gpu_bytes=gpu.memory, **load)

    def largest(changed: TrainRecipe, count: int) -> int:
        return largest_pack(
            shape,
            stage,
            changed,
            gpus=count,
            gpu_bytes=gpu.memory,
            tokens_per_image=tokens_per_tile,
            supervised_share=supervised_share,
        )

    fits = need.total <= gpu.memory
    fill = fill_of(train, corpus, tokens_per_image=per_image, tiles=tiles, gpus=gpus)
    steps = train.max_steps or math.ceil(corpus.rows * train.epochs / train.global_batch_size)
    rows = steps * train.global_batch_size if train.max_steps else corpus.rows * train.epochs
    flops = step_flops(
        shape,
        stage,
        documents=[row],
        positions=corpus.supervised,
        images=corpus.images * tiles,
        lora=train.lora,
        train_tower=train.vision_tower_learning_rate is not None,
        checkpoint_every=train.activation_checkpoint_every_n_layers,
    ).scaled(rows)
    computing = flops.hardware / (gpus * gpu.peak_bf16 * mfu)
    trained = trained_parameters(shape, stage, train)
    everything = shape.language_parameters + shape.tower_parameters + shape.projector_parameters
    sent = traffic(
        zero=train.effective_zero_stage,
        gpus=gpus,
        trained=trained,
        everything=everything,
        micro_steps=math.ceil(fill.micro_steps),
        bf16=train.precision == "bf16",
    )
    exposed = sent.exposed_seconds(computing / steps, Links(per_node, gpu.link, network).rate(gpus))
    exposed += offload_seconds(
        optimizer=train.offload_optimizer,
        parameters=train.offload_parameters,
        gpus=gpus,
        per_node=per_node,
        trained=trained,
        everything=everything,
        micro_steps=math.ceil(fill.micro_steps),
    )
    exchanging = steps * exposed
    hours = (computing + exchanging) / 3600
    by_zero = {
        zero: memory(
            shape, stage, train.model_copy(update={"zero_stage": zero}), gpus=gpus, gpu_bytes=gpu.memory, **load
        )
        for zero in ((1, 2, 3) if train.precision == "bf16" else (0, 1, 2, 3))
    }
    plan = StagePlan(
        stage=stage,
        corpus=corpus,
        tokens_per_row=row,
        trained_parameters=trained,
        micro_tokens=micro,
        memory=need,
        fits=fits,
        largest_pack=largest(train, gpus),
        steps=steps,
        flops=flops,
        hours=hours,
        communication_hours=exchanging / 3600,
        fill=fill,
        host=host(shape, stage, train, gpus=gpus, per_node=per_node),
        remedies=[] if fits else remedies(train, stage, gpus, largest, smallest=train.max_length),
        cost=hours * gpus * price,
        by_zero=by_zero,
    )
    plan.warnings.extend(_warnings(plan, train, gpu, gpus))
    return plan


def _warnings(plan: StagePlan, train: TrainRecipe, gpu: Gpu, gpus: int) -> list[str]:
    out = []
    if not plan.fits:
        ways = "; ".join(remedy.text for remedy in plan.remedies)
        out.append(
            f"{plan.stage}: does not fit: {plan.memory.total / GIB:.1f} GiB needed, {gpu.memory / GIB:.1f} GiB there; "
            + (f"what fits, cheapest first: {ways}" if ways else "nothing that this project can do makes it fit")
        )
    if train.zero_stage == 3 and plan.stage == "pretrain":
        out.append(
            "pretrain: zero_stage 3 gathers all frozen weights again in every micro-step; they are not trained, so "
            "zero_stage 1 costs little memory more where they fit"
        )
    if train.packing and plan.fill.share < 0.7 and plan.fill.bound == "images":
        out.append(
            f"{plan.stage}: packs are {plan.fill.share:.0%} full because pack_images {train.pack_images} is reached "
            f"before pack_tokens {train.pack_tokens}; raise it (an AnyRes image counts as its tiles)"
        )
    rows_per_pack = max(1.0, plan.micro_tokens / plan.tokens_per_row)
    rows_per_gpu, micro = train.global_batch_size / gpus, plan.micro_tokens
    useful = min(plan.largest_pack, rows_per_gpu * plan.tokens_per_row)
    if plan.fits and train.packing and useful > 2 * micro:
        out.append(f"{plan.stage}: room for packs of up to {plan.largest_pack} tokens, not {train.pack_tokens}")
    if rows_per_gpu < 0.75 * rows_per_pack:
        out.append(
            f"{plan.stage}: a step's {train.global_batch_size} rows do not fill one pack of {rows_per_pack:.0f} rows "
            f"on each of {gpus} GPUs, which would idle: use fewer GPUs or smaller packs"
        )
    return out


def check_arguments(gpus: int, mfu: float, price: float, *, per_node: int = 8, network: float = 400.0) -> None:
    """Raises SettingsError for numbers that make no plan."""
    if gpus < 1:
        raise SettingsError(f"gpus: found {gpus}; expected at least 1")
    if not 0 < mfu <= 1:
        raise SettingsError(f"mfu: found {mfu}; expected a share above 0 and at most 1, such as 0.4")
    if per_node < 1:
        raise SettingsError(f"gpus-per-node: found {per_node}; expected at least 1")
    if network <= 0:
        raise SettingsError(f"network: found {network}; expected Gbit/s of a node, such as 100")
    if price < 0:
        raise SettingsError(f"price: found {price}; expected US dollars an hour and GPU, 0 or more")
