"""Settings of the expansion stage, and the parts of an expansion that they describe."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from llava.errors import SettingsError
from llava.stages.stage import StageSettings

if TYPE_CHECKING:
    from llava.expansion.asking.teaching import TeacherSettings
    from llava.expansion.job import Job
    from llava.expansion.opinions.judge import JudgeSettings
    from llava.expansion.rows.building import RowOptions
    from llava.expansion.run import Checks


class Settings(StageSettings):
    """What to expand, by whom, how much of it and for how much."""

    annotations_uri: str = Field(
        description="Folder or comma-separated files, told by content: COCO and its kin (LVIS, Objects365, Roboflow), "
        "Visual Genome regions, Open Images, image-caption lists (JSON, CSV), webdataset shards, Parquet; or hf://datasets/..."
    )
    images_uri: str = Field(
        "",
        description="Folder or URI that image paths start from; for the preview, for kinds that show the image, and "
        "for Open Images; images inside Parquet files are written there",
    )
    image_longest_side: int = Field(
        1024, ge=0, description="Images shown to the teacher are scaled down to so many pixels; 0: never"
    )
    image_quality: int = Field(85, ge=1, le=95, description="JPEG quality of images that are scaled or converted")
    image_url_prefix: str = Field(
        "", description="Address below which the teacher finds the images itself; empty: they travel in the requests"
    )
    image_prefix: str = Field("", description="Put before each file name in the rows, e.g. train2017")
    split: str = Field("train", description="Which files of an annotations folder: captions_<split>*.json")
    kinds: str = Field("conversation,detail,reasoning", description="Instruction rows to make; also: naive, region")
    expansion_recipe: str = Field("coco", description="Name, folder or URI of an expansion recipe")
    limit: int = Field(0, ge=0, description="Use only so many images; 0: all")
    seed: int = Field(0, description="Decides every random choice")

    teacher: Literal["offline", "openai"] = Field(
        "offline", description="offline: deterministic and free; openai: any OpenAI-compatible endpoint"
    )
    mode: Literal["online", "batch"] = Field(
        "online",
        description="online: one request after another; batch: jobs at the provider's batch interface, cheaper",
    )
    batch_form: Literal["openai", "anthropic", "gemini"] = Field(
        "openai", description="Whose batch interface teacher_endpoint is"
    )
    batch_requests: int = Field(0, ge=0, description="Most requests in a batch job; 0: the provider's limit")
    batch_enqueued_tokens: int = Field(
        0, ge=0, description="Most input tokens in unfinished batch jobs, as the account allows; 0: no limit"
    )
    batch_canary: int = Field(
        50, ge=0, description="Requests of the first batch job, judged before more is sent; 0: all is sent at once"
    )
    batch_poll_s: float = Field(60.0, gt=0, description="Seconds between two looks at batch jobs")
    teacher_endpoint: str = Field("", description="Base URL of the endpoint; empty: the client's default")
    teacher_model: str = Field("", description="Model name as the endpoint knows it")
    max_cost: float = Field(
        0.0, ge=0, description="Budget in the price table's currency, with what the ledger already cost; 0: none"
    )
    allow_partial: bool = Field(False, description="When the budget is used up, build the rows from what was answered")
    prices: str = Field("", description="Price table (YAML); empty: the bundled one")
    requests_per_minute: float = Field(0.0, ge=0, description="Rate limit; 0: none")
    tokens_per_minute: float = Field(0.0, ge=0, description="Rate limit on input and output tokens; 0: none")
    concurrency: int = Field(32, ge=1, le=1024, description="Most requests in flight; fewer when the teacher is slow")
    request_timeout_s: float = Field(120.0, gt=0, description="Seconds before a request is given up and retried")
    max_retries: int = Field(8, ge=0, description="Retries of one request after errors that may pass")
    max_repairs: int = Field(2, ge=0, description="Further paid attempts after a reply that cannot be used")
    max_unusable: float = Field(
        0.5, ge=0, le=1, description="Stop when more of the first 50 replies, or of any 50 later, give no row; 1: never"
    )
    retry_dropped: str = Field(
        "", description="Ask again for what was dropped by these gates (or `teacher`), comma-separated; or all"
    )
    extra_body: str = Field(
        "", description='Fields of each request as a JSON object, e.g. {"reasoning_effort": "low"}; null removes one'
    )
    ledger_uri: str = Field("", description="Ledger folder shared between runs; empty: beside instruct_data")

    naive_form: Literal["plain", "question"] = Field(
        "plain", description="pretrain_data: the caption alone, or with a brief question"
    )
    captions_per_image: int = Field(1, ge=0, description="Naive pairs per image in pretrain_data; 0: every caption")
    image_position: Literal["before", "after", "random"] = Field(
        "before", description="Image before or after the first question"
    )
    region_frame: Literal["original", "padded"] = Field(
        "padded", description="Region boxes as fractions of the original image or of its padded square"
    )
    mixture: str = Field("", description="Mixture file (YAML) that combines generated and external data; empty: none")

    blocklist_uri: str = Field("", description="Files with ids or names of evaluation images, comma-separated")
    gates_off: str = Field("", description="Quality gates to leave out, comma-separated")
    judge_sample: int = Field(
        0, ge=0, description="Replies per kind and gate that a judge scores from 1 to 5; 0: no judge"
    )
    judge_rows: Literal["sample", "all"] = Field(
        "sample",
        description="sample: judge_sample of kept and dropped, no row changes; all: every row that passed the gates, "
        "and those below judge_threshold are dropped",
    )
    judge_images: bool = Field(False, description="Show the judge the images too; needs images_uri")
    judge_threshold: str = Field(
        "3", description="Lowest good score: one number, or kind=number, e.g. 3,detail=4,reasoning=3.5"
    )
    judge_model: str = Field("", description="Judge's model; empty: the teacher's")
    judge_endpoint: str = Field("", description="Judge's OpenAI-compatible endpoint; empty: the teacher's")
    judge_max_cost: float = Field(
        0.0, ge=0, description="Budget of the judge alone; 0: what the teacher leaves of max_cost"
    )
    clip_model: str = Field(
        "", description="CLIP or SigLIP (folder, URI or hub id) that scores rows against their images; empty: none"
    )
    clip_threshold: str = Field(
        "",
        description="Lowest CLIPScore (0 to 2.5) of a row that stays: a number, or kind=number; empty: drops none",
    )
    preview_rows: int = Field(12, ge=0, description="Rows per kind and gate in the report")
    max_bad_rows: float = Field(0.01, ge=0, le=1, description="Largest share of broken annotation rows")
    max_dropped: float = Field(0.5, ge=0, le=1, description="Largest share of replies dropped or missing")


def job_of(settings: Settings, model: str) -> Job:
    """The work that the settings describe, for a teacher of that name.

    Raises:
        DataError: annotations cannot be used.
        SettingsError: an unknown kind or recipe, or extra_body that is no JSON object.
    """
    from llava.expansion.job import open_job
    from llava.expansion.recipe.attaching import ImageForm

    return open_job(
        annotations_uri=settings.annotations_uri,
        split=settings.split,
        image_prefix=settings.image_prefix,
        kinds=settings.kinds,
        expansion_recipe=settings.expansion_recipe,
        model=model,
        limit=settings.limit,
        seed=settings.seed,
        blocklist_uri=settings.blocklist_uri,
        max_bad_rows=settings.max_bad_rows,
        extra_body=_extra_body(settings.extra_body),
        images_uri=settings.images_uri,
        judge_sees=settings.judge_images and judge_of(settings).asked,
        image_form=ImageForm(settings.image_longest_side, settings.image_quality, settings.image_url_prefix),
    )


def _extra_body(text: str) -> dict[str, Any]:
    from llava.expansion.recipe.kinds import check_extra_body

    try:
        value = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise SettingsError(f"extra_body: found {text!r}; expected a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise SettingsError(f"extra_body: found {text!r}; expected a JSON object")
    try:
        check_extra_body(value)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    return value


def teacher_settings(settings: Settings) -> TeacherSettings:
    """The part of the settings that is about the teacher."""
    from llava.expansion.asking.batch_run import BatchLimits
    from llava.expansion.asking.limits import Limits
    from llava.expansion.asking.teaching import TeacherSettings

    return TeacherSettings(
        teacher=settings.teacher,
        endpoint=settings.teacher_endpoint,
        model=settings.teacher_model,
        prices=settings.prices,
        max_cost=settings.max_cost,
        requests_per_minute=settings.requests_per_minute,
        tokens_per_minute=settings.tokens_per_minute,
        timeout=settings.request_timeout_s,
        limits=Limits(settings.concurrency, settings.max_retries, settings.max_repairs, settings.max_unusable),
        mode=settings.mode,
        batch_form=settings.batch_form,
        batch=BatchLimits(
            settings.batch_requests, 0, settings.batch_enqueued_tokens, settings.batch_poll_s, settings.batch_canary
        ),
    )


def row_options(settings: Settings) -> RowOptions:
    """The part of the settings that is about rows."""
    from llava.expansion.rows.building import RowOptions

    return RowOptions(
        image_position=settings.image_position,
        region_frame=settings.region_frame,
        naive_question=settings.naive_form == "question",
        captions_per_image=settings.captions_per_image,
        mixture=settings.mixture,
    )


def judge_of(settings: Settings) -> JudgeSettings:
    """The part of the settings that is about a judge."""
    from llava.expansion.opinions.judge import JudgeSettings

    return JudgeSettings(
        rows=settings.judge_rows,
        sample=settings.judge_sample,
        model=settings.judge_model,
        endpoint=settings.judge_endpoint,
        max_cost=settings.judge_max_cost,
        thresholds=settings.judge_threshold,
        images=settings.judge_images,
    )


def checks_of(settings: Settings) -> Checks:
    """The part of the settings that is about what is looked at, and how much may be wrong."""
    from llava.expansion.job import split_names
    from llava.expansion.opinions.similarity import SimilaritySettings
    from llava.expansion.run import Checks

    return Checks(
        gates_off=frozenset(split_names(settings.gates_off)),
        judge=judge_of(settings),
        similarity=SimilaritySettings(settings.clip_model, settings.clip_threshold),
        preview_rows=settings.preview_rows,
        max_dropped=settings.max_dropped,
        allow_partial=settings.allow_partial,
        retry_dropped=frozenset(split_names(settings.retry_dropped)),
    )
