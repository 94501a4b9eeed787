"""The Kubeflow components, one folder per stage: `component.py` (the interface), `metadata.yaml`, `README.md`."""

FOLDERS = {
    "expand": "data_expansion",
    "pretrain": "pretrain",
    "finetune": "finetune",
    "evaluate": "evaluate",
    "export": "export_onnx",
}
