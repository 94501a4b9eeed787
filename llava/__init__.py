"""LLaVA training as a Kubeflow pipeline: expand, pretrain, finetune, evaluate, export."""

__version__ = "0.1.0"
