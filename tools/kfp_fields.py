"""Which fields of compiled packages the Kubeflow of one version does not know: `python tools/kfp_fields.py PACKAGE ...`

Run by an environment that holds that version's `kfp-pipeline-spec` and `kfp-kubernetes`, whose messages are those of
its API server and driver. The API server refuses a pipeline spec with a field it does not know (protojson, strict, in
v2_template.go of 2.14 to 2.17); the driver drops such a field of the Kubernetes settings (UnmarshalString).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

_FREE = ("google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue", "google.protobuf.Duration")


def unknown(value: Any, message: Any, place: str = "") -> Iterator[str]:
    """Places in JSON that its message has no field for.

    Args:
        value: the message as JSON.
        message: a protobuf descriptor.
    """
    if message.full_name in _FREE or not isinstance(value, dict):
        return
    fields = {name: field for field in message.fields for name in (field.json_name, field.name)}
    for key, inner in value.items():
        field, where = fields.get(key), f"{place}.{key}".lstrip(".")
        if field is None:
            yield where
            continue
        kind = field.message_type
        if kind is None:
            continue
        if kind.GetOptions().map_entry:
            of_values = kind.fields_by_name["value"].message_type
            for each in inner.values() if of_values is not None else ():
                yield from unknown(each, of_values, f"{where}.*")
        else:
            for each in inner if isinstance(inner, list) else [inner]:
                yield from unknown(each, kind, where)


def main(packages: list[str]) -> int:
    """Print what is not known; 1 where a pipeline spec would be refused."""
    from kfp.kubernetes import kubernetes_executor_config_pb2 as settings
    from kfp.pipeline_spec import pipeline_spec_pb2 as pipeline

    refused, dropped = set(), set()
    for name in packages:
        spec, platform = yaml.safe_load_all(Path(name).read_text())
        refused |= set(unknown(spec, pipeline.PipelineSpec.DESCRIPTOR))
        for executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
            dropped |= set(unknown(executor, settings.KubernetesExecutorConfig.DESCRIPTOR))
    print(f"  the API server refuses: {', '.join(sorted(refused)) or 'nothing'}")
    print(f"  the driver drops: {', '.join(sorted(dropped)) or 'nothing'}")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
