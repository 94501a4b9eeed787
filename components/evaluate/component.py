"""The Kubeflow component of the evaluate stage.

Written from `llava/stages/evaluate.py` by `python -m components.sync`: change it there.
"""

# ruff: noqa: UP045
from typing import Optional

from kfp import dsl

from components.images import image_of


@dsl.container_component
def evaluate(
    questions_uri: str,
    predictions: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    benchmark: str = "custom",
    images_uri: str = "",
    profile: str = "llava-1.5",
    batch_size: int = 64,
    dtype: str = "auto",
    processes: str = "auto",
    endpoint: str = "",
    endpoint_model: str = "",
    concurrency: int = 32,
    max_new_tokens: int = 0,
    blank_baseline: bool = True,
    limit: int = 0,
    max_bad_rows: float = 0.01,
    model: Optional[dsl.Input[dsl.Model]] = None,
    model_uri: str = "",
    projector: Optional[dsl.Input[dsl.Model]] = None,
    projector_uri: str = "",
) -> dsl.ContainerSpec:
    """Answer a benchmark in batches and score it, beside two baselines

    Args:
        benchmark: custom (your own questions), one of docs/evaluation.md, several separated by commas, a suite (llava-1.5, or a YAML file), or a Python file of your own
        questions_uri: The benchmark's folder, as people have it, or its files, separated by commas; of several benchmarks the folder that holds theirs
        images_uri: Folder or s3:// prefix that image paths are relative to; after commas, further allowed places
        profile: How answers are read: as the original's scripts do, or with more understanding
        batch_size: Questions answered together
        dtype: Type the model computes in; auto: bfloat16 on a GPU, float32 on a CPU
        processes: Processes that share the questions; auto: one a GPU
        endpoint: Base URL of an OpenAI-compatible server of the same model directory (a vLLM server, http://HOST:8000/v1), which answers in place of our generator
        endpoint_model: The model's name at the endpoint; empty: the only one it serves
        concurrency: Requests in flight at the endpoint
        max_new_tokens: Longest answer in tokens; 0: what the benchmark needs
        blank_baseline: Also ask with the image replaced by its mean colour
        limit: Ask only the first so many questions; 0: all
        max_bad_rows: Largest share of questions without an answer: image missing or broken, or refused by the endpoint
        model: The fine-tuned model: a hub directory
        model_uri: model by URI, from any bucket, instead of as an artifact
        projector: Stage 1's projector; with it the stage-1 model is asked too
        projector_uri: projector by URI, from any bucket, instead of as an artifact
        predictions: Answers and scores of every question, a JSON line each, one file a model
        report: Figures, bars by kind with intervals, images with questions and answers
        metrics: Accuracy with its interval, by kind, and of the baselines
    """
    return dsl.ContainerSpec(
        image=image_of("evaluate"),
        # The stage's name makes the container spec unlike every other one: the backend merges equal ones.
        command=["python", "-m", "llava.executor", "evaluate"],
        args=["--executor-input", "{{$}}"],
    )
