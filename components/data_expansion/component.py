"""The Kubeflow component of the expand stage.

Written from `llava/stages/expand.py` by `python -m components.sync`: change it there.
"""

from kfp import dsl

from components.images import image_of


@dsl.container_component
def expand(
    annotations_uri: str,
    pretrain_data: dsl.Output[dsl.Dataset],
    instruct_data: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    images_uri: str = "",
    image_prefix: str = "",
    split: str = "train",
    kinds: str = "conversation,detail,reasoning",
    expansion_recipe: str = "coco",
    teacher: str = "offline",
    naive_form: str = "plain",
    image_position: str = "before",
    captions_per_image: int = 1,
    limit: int = 0,
    seed: int = 0,
    gates_off: str = "",
    ledger_uri: str = "",
    max_bad_rows: float = 0.01,
    max_dropped: float = 0.5,
) -> dsl.ContainerSpec:
    """Expand captions and boxes into rows for both training stages

    Args:
        annotations_uri: COCO annotations folder (captions_*.json, instances_*.json), or comma-separated files
        images_uri: Folder or URI that image paths start from; only the preview reads pictures
        image_prefix: Put before each file name in the rows, e.g. train2017
        split: Which files of an annotations folder: captions_<split>*.json
        kinds: Kinds of instruct rows, comma-separated; also naive, region
        expansion_recipe: Name, folder or URI of an expansion recipe
        teacher: offline: deterministic, free; openai: any compatible endpoint
        naive_form: pretrain_data: caption alone, or with a brief question
        image_position: Image before or after the first question
        captions_per_image: Naive pairs per picture in pretrain_data; 0: every caption
        limit: Use only this many pictures; 0: all
        seed: Decides every random choice
        gates_off: Quality gates to leave out, comma-separated
        ledger_uri: Ledger folder shared between runs; empty: beside instruct_data
        max_bad_rows: Largest share of broken annotation rows before the stage stops
        max_dropped: Largest share of dropped replies before the stage stops
        pretrain_data: Naive pairs for feature alignment, LLaVA JSON
        instruct_data: Instruction rows, LLaVA JSON
        report: What was made, what was dropped, and a preview
        metrics: Counts of rows, drops, tokens and cost
    """
    return dsl.ContainerSpec(
        image=image_of("expand"),
        # The stage's name makes the container spec unlike every other one: the backend merges equal ones.
        command=["python", "-m", "llava.executor", "expand"],
        args=["--executor-input", "{{$}}"],
    )
