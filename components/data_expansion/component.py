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
    image_longest_side: int = 1024,
    image_quality: int = 85,
    image_url_prefix: str = "",
    image_prefix: str = "",
    split: str = "train",
    kinds: str = "conversation,detail,reasoning",
    expansion_recipe: str = "coco",
    limit: int = 0,
    seed: int = 0,
    teacher: str = "offline",
    mode: str = "online",
    batch_form: str = "openai",
    batch_requests: int = 0,
    batch_enqueued_tokens: int = 0,
    batch_canary: int = 50,
    batch_poll_s: float = 60.0,
    teacher_endpoint: str = "",
    teacher_model: str = "",
    max_cost: float = 0.0,
    allow_partial: bool = False,
    prices: str = "",
    requests_per_minute: float = 0.0,
    tokens_per_minute: float = 0.0,
    concurrency: int = 32,
    request_timeout_s: float = 120.0,
    max_retries: int = 8,
    max_repairs: int = 2,
    max_unusable: float = 0.5,
    retry_dropped: str = "",
    extra_body: str = "",
    ledger_uri: str = "",
    naive_form: str = "plain",
    captions_per_image: int = 1,
    image_position: str = "before",
    region_frame: str = "padded",
    mixture: str = "",
    blocklist_uri: str = "",
    gates_off: str = "",
    judge_sample: int = 0,
    judge_rows: str = "sample",
    judge_images: bool = False,
    judge_threshold: str = "3",
    judge_model: str = "",
    judge_endpoint: str = "",
    judge_max_cost: float = 0.0,
    clip_model: str = "",
    clip_threshold: str = "",
    preview_rows: int = 12,
    max_bad_rows: float = 0.01,
    max_dropped: float = 0.5,
) -> dsl.ContainerSpec:
    """Expand captions and boxes into rows for both training stages

    Args:
        annotations_uri: Folder or comma-separated files, told by content: COCO and its kin (LVIS, Objects365, Roboflow), Visual Genome regions, Open Images, image-caption lists (JSON, CSV), webdataset shards, Parquet; or hf://datasets/...
        images_uri: Folder or URI that image paths start from; for the preview, for kinds that show the image, and for Open Images; images inside Parquet files are written there
        image_longest_side: Images shown to the teacher are scaled down to so many pixels; 0: never
        image_quality: JPEG quality of images that are scaled or converted
        image_url_prefix: Address below which the teacher finds the images itself; empty: they travel in the requests
        image_prefix: Put before each file name in the rows, e.g. train2017
        split: Which files of an annotations folder: captions_<split>*.json
        kinds: Instruction rows to make; also: naive, region
        expansion_recipe: Name, folder or URI of an expansion recipe
        limit: Use only so many images; 0: all
        seed: Decides every random choice
        teacher: offline: deterministic and free; openai: any OpenAI-compatible endpoint
        mode: online: one request after another; batch: jobs at the provider's batch interface, cheaper
        batch_form: Whose batch interface teacher_endpoint is
        batch_requests: Most requests in a batch job; 0: the provider's limit
        batch_enqueued_tokens: Most input tokens in unfinished batch jobs, as the account allows; 0: no limit
        batch_canary: Requests of the first batch job, judged before more is sent; 0: all is sent at once
        batch_poll_s: Seconds between two looks at batch jobs
        teacher_endpoint: Base URL of the endpoint; empty: the client's default
        teacher_model: Model name as the endpoint knows it
        max_cost: Budget in the price table's currency, with what the ledger already cost; 0: none
        allow_partial: When the budget is used up, build the rows from what was answered
        prices: Price table (YAML); empty: the bundled one
        requests_per_minute: Rate limit; 0: none
        tokens_per_minute: Rate limit on input and output tokens; 0: none
        concurrency: Most requests in flight; fewer when the teacher is slow
        request_timeout_s: Seconds before a request is given up and retried
        max_retries: Retries of one request after errors that may pass
        max_repairs: Further paid attempts after a reply that cannot be used
        max_unusable: Stop when more of the first 50 replies, or of any 50 later, give no row; 1: never
        retry_dropped: Ask again for what was dropped by these gates (or `teacher`), comma-separated; or all
        extra_body: Fields of each request as a JSON object, e.g. {"reasoning_effort": "low"}; null removes one
        ledger_uri: Ledger folder shared between runs; empty: beside instruct_data
        naive_form: pretrain_data: the caption alone, or with a brief question
        captions_per_image: Naive pairs per image in pretrain_data; 0: every caption
        image_position: Image before or after the first question
        region_frame: Region boxes as fractions of the original image or of its padded square
        mixture: Mixture file (YAML) that combines generated and external data; empty: none
        blocklist_uri: Files with ids or names of evaluation images, comma-separated
        gates_off: Quality gates to leave out, comma-separated
        judge_sample: Replies per kind and gate that a judge scores from 1 to 5; 0: no judge
        judge_rows: sample: judge_sample of kept and dropped, no row changes; all: every row that passed the gates, and those below judge_threshold are dropped
        judge_images: Show the judge the images too; needs images_uri
        judge_threshold: Lowest good score: one number, or kind=number, e.g. 3,detail=4,reasoning=3.5
        judge_model: Judge's model; empty: the teacher's
        judge_endpoint: Judge's OpenAI-compatible endpoint; empty: the teacher's
        judge_max_cost: Budget of the judge alone; 0: what the teacher leaves of max_cost
        clip_model: CLIP or SigLIP (folder, URI or hub id) that scores rows against their images; empty: none
        clip_threshold: Lowest CLIPScore (0 to 2.5) of a row that stays: a number, or kind=number; empty: drops none
        preview_rows: Rows per kind and gate in the report
        max_bad_rows: Largest share of broken annotation rows
        max_dropped: Largest share of replies dropped or missing
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
