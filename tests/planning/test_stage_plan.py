"""`llava plan`: sums that add up, warnings that help, a command a person can read and a script can parse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llava.config import load_recipe
from llava.errors import SettingsError
from llava.planning.corpora import CORPORA, Corpus, default_corpus
from llava.planning.gpus import GPUS, gpu_named
from llava.planning.stage_plan import StagePlan, check_arguments, plan_stage, shape_of, visual_tokens_and_tiles


def plan(
    name: str = "llava-v1.5-7b",
    stage: Any = "finetune",
    overrides: Any = None,
    corpus: Corpus | None = None,
    **more: Any,
) -> StagePlan:
    recipe = load_recipe(name, overrides)
    options: dict[str, Any] = {"gpu": gpu_named("h200"), "gpus": 8, "mfu": 0.4, "price": 5.0, **more}
    return plan_stage(recipe, stage, shape_of(recipe.model), corpus or default_corpus(name, stage), **options)


def test_steps_flops_hours_and_cost_add_up() -> None:
    result = plan()
    assert result.steps == -(-665_298 // 128)
    assert result.flops.total == pytest.approx(665_298 * 32.1e12, rel=0.02)
    assert result.hours == pytest.approx(result.flops.total / (8 * 989e12 * 0.4) / 3600)
    assert result.cost == pytest.approx(result.hours * 8 * 5)
    assert plan(gpus=4).hours == pytest.approx(2 * result.hours)
    assert plan(mfu=0.2).hours == pytest.approx(2 * result.hours)


def test_the_published_times_are_met_at_the_published_utilisation() -> None:
    """7B on 8 A100: stage 1 in 3.5 h at 29 % MFU; stage 2 in 10 h at 21-25 % (FACTS 5)."""
    full = {"pretrain.activation_checkpoint_every_n_layers": 1, "finetune.activation_checkpoint_every_n_layers": 1}
    a100 = gpu_named("a100")
    first = plan(stage="pretrain", gpu=a100, mfu=0.29)
    assert first.hours == pytest.approx(3.5, rel=0.05)
    second = plan(gpu=a100, mfu=0.23)
    assert second.hours == pytest.approx(10, rel=0.1)
    # Every layer recomputed but for its last product: a quarter more, not the third that the whole layer would be.
    assert plan(overrides=full, gpu=a100, mfu=0.23).hours == pytest.approx(second.hours * 1.25, rel=0.02)


def test_max_steps_limits_rows_and_epochs_multiply() -> None:
    few = plan(overrides={"finetune.max_steps": 10})
    assert few.steps == 10
    assert few.flops.total == pytest.approx(plan().flops.total * 1280 / 665_298)
    assert plan(overrides={"finetune.epochs": 2}).flops.total == pytest.approx(2 * plan().flops.total)


def test_what_does_not_fit_says_what_would() -> None:
    small = plan(gpu=gpu_named("a100-40g"), overrides={"finetune.pack_tokens": 12288})
    assert not small.fits
    (warning,) = [text for text in small.warnings if "does not fit" in text]
    assert "39.4 GiB there" in warning
    assert "activation_checkpoint_every_n_layers" in warning
    alone = plan(gpus=1, gpu=gpu_named("a100"))
    assert not alone.fits
    assert alone.largest_pack == 0
    assert any("more or larger GPUs" in text for text in alone.warnings)
    # The way out it names is one.
    tight = plan(gpu=gpu_named("h100"), overrides={"finetune.pack_tokens": 8960})
    assert not tight.fits
    assert f"pack_tokens of at most {tight.largest_pack}" in tight.warnings[0]
    assert plan(gpu=gpu_named("h100"), overrides={"finetune.pack_tokens": tight.largest_pack}).fits
    assert "zero_stage 3" in tight.warnings[0]
    assert plan(gpu=gpu_named("h100"), overrides={"finetune.pack_tokens": 8960, "finetune.zero_stage": 3}).fits


def test_wasteful_recipes_are_told() -> None:
    assert any(
        "gathers all frozen weights" in text
        for text in plan(stage="pretrain", overrides={"pretrain.zero_stage": 3}).warnings
    )
    assert any("would idle" in text for text in plan(gpus=64).warnings)
    assert any("room for packs" in text for text in plan(overrides={"finetune.pack_tokens": 2048}).warnings)
    assert not plan().warnings


def test_padded_batches_are_planned_at_their_worst() -> None:
    padded = plan(overrides={"finetune.packing": False, "finetune.micro_batch_size": 4})
    assert padded.micro_tokens == 4 * 2048


def test_anyres_images_are_several_tiles() -> None:
    shape = shape_of(load_recipe("llava-v1.6-7b").model)
    tokens, tiles = visual_tokens_and_tiles(shape)
    assert tiles == 5
    assert tokens == 576 + 36 * 49
    assert plan("llava-v1.6-7b").flops.tower > 4.5 * 3 * plan().flops.tower  # and the tower is trained


def test_the_anyres_estimate_is_the_processors_count() -> None:
    """A 640 x 480 photograph, through the stock processor at full size."""
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
    from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

    recipe = load_recipe("llava-v1.6-7b").model
    processor = LlavaNextProcessor.__new__(LlavaNextProcessor)
    processor.image_processor = LlavaNextImageProcessorPil(
        image_grid_pinpoints=[list(size) for size in recipe.image_grid_pinpoints or ()]
    )
    processor.patch_size, processor.num_additional_image_tokens = 14, 0
    assert processor._get_number_of_features(480, 640, 336, 336) == visual_tokens_and_tiles(shape_of(recipe))[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gpu_named("h1000"), "gpu: found 'h1000'; expected one of l4"),
        (lambda: check_arguments(0, 0.4, 1), "gpus: found 0"),
        (lambda: check_arguments(1, 40, 1), "mfu: found 40; expected a share"),
        (lambda: check_arguments(1, 0.4, -1), "price: found -1"),
    ],
)
def test_bad_arguments(call: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        call()


def test_tables_are_sound() -> None:
    assert all(
        gpu.name == name and gpu.memory > 2**34 and gpu.peak_bf16 > 1e14 and gpu.price > 0 for name, gpu in GPUS.items()
    )
    assert all(corpus.supervised <= corpus.text_tokens for corpus in CORPORA.values())


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    from llava.cli import main

    try:
        main(["plan", *arguments])
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_command_prints_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--recipe", "llava-v1.5-7b", "--gpu", "h200", "--gpus", "8")
    assert code == 0
    for text in ("8 x h200", "ZeRO 1", "ZeRO 3", "optimiser steps", "5,198", "fits", "USD", "estimated text lengths"):
        assert text in out
    code, out, _ = run(capsys, "--gpu", "h200", "--json", "--price", "2", "--mfu", "0.5")
    figures = json.loads(out)
    assert figures["price"] == 2
    stage = figures["stages"][1]
    parts = [value for key, value in stage["memory"].items() if key != "total"]
    assert stage["memory"]["total"] == pytest.approx(sum(parts))
    assert set(stage["by_zero"]) == {"1", "2", "3"}


@pytest.mark.parametrize(
    "arguments", [["--recipe", "llava-9"], ["--gpu", "abacus"], ["--overrides", '{"finetune.lr": 1}'], ["--mfu", "40"]]
)
def test_command_refuses_with_a_message(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert err.startswith("llava: ")
    assert "Traceback" not in err


def test_a_file_of_rows_is_measured(tiny_recipe: Path, tiny_world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--recipe", str(tiny_recipe), "--json", "--pretrain-data", str(tiny_world.pretrain_json)]
    code, out, err = run(capsys, *arguments, "--finetune-data", str(tiny_world.instruct_json))
    assert code == 0, err
    pretrain, finetune = json.loads(out)["stages"]
    assert pretrain["corpus"]["measured"] and finetune["corpus"]["measured"]
    assert pretrain["corpus"]["rows"] == 64
    assert pretrain["corpus"]["images"] == 1
    assert finetune["corpus"]["images"] == pytest.approx(7 / 8)
    assert 0 < pretrain["corpus"]["supervised"] < pretrain["corpus"]["text_tokens"] + 1 < 200


def test_at_most_2000_evenly_spaced_rows_are_measured_with_one_tokenizer_and_bad_ones_left_out(
    tiny_recipe: Path, tiny_world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3,999 rows, of which the longer half comes last; a row whose answer spells an end token, one with no answer."""
    from llava.data.labels import RowEncoder
    from llava.planning.measuring import measure

    texts = ["red"] * 2000 + ["red " * 20] * 1997 + ["</s>", ""]
    rows = [
        {"id": str(k), "conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": text}]}
        for k, text in enumerate(texts)
    ]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    looked_at: list[int] = []
    encode_all, made = RowEncoder.encode_all, RowEncoder.__init__
    encoders: list[object] = []

    def counted(self: RowEncoder, records: Any, *args: Any, **kwargs: Any) -> Any:
        looked_at.extend(record.index for record in records)
        return encode_all(self, records, *args, **kwargs)

    def noted(self: RowEncoder, *args: Any, **kwargs: Any) -> None:
        encoders.append(self)
        made(self, *args, **kwargs)

    monkeypatch.setattr(RowEncoder, "encode_all", counted)
    monkeypatch.setattr(RowEncoder, "__init__", noted)
    corpus, problems = measure(load_recipe(str(tiny_recipe)), "finetune", str(file))
    assert len(looked_at) == 2000 and (looked_at[0], looked_at[-1]) == (0, 3997)
    assert len(encoders) == 1, "an encoder copies its tokenizer"
    assert [problem.row for problem in problems] == [3998, 3997]  # what no stage can read, then what it cannot encode
    assert all(str(file) in str(problem) for problem in problems)
    assert corpus.rows == 3998 and corpus.images == 0
    short, long = (
        measure(load_recipe(str(tiny_recipe)), "finetune", one_row(tmp_path, text)) for text in texts[1999:2001]
    )
    assert corpus.supervised == pytest.approx((short[0].supervised + long[0].supervised) / 2, rel=0.01)


def one_row(folder: Path, text: str) -> str:
    path = folder / f"{len(text)}.json"
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": text}]
    path.write_text(json.dumps([{"id": "0", "conversations": turns}]))
    return str(path)


def test_a_bad_row_is_said_and_a_file_of_nothing_else_is_refused(
    tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = (one_row(tmp_path, text) for text in ("red", "</s>"))
    both = tmp_path / "both.json"
    both.write_text(json.dumps([*json.loads(Path(good).read_text()), *json.loads(Path(bad).read_text())]))
    code, _, err = run(capsys, "--recipe", str(tiny_recipe), "--json", "--finetune-data", str(both))
    assert code == 0 and f"note: {both}: 1 row cannot be used, the first: {both}" in err
    code, _, err = run(capsys, "--recipe", str(tiny_recipe), "--finetune-data", bad)
    assert code == 2 and f"{bad}: none of its 1 rows can be used" in err


@pytest.mark.slow
def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from llava.cli import main\n"
        "try: main(['plan', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
