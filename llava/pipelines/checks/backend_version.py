"""Which Kubeflow Pipelines a cluster runs, and what that version does not know of our packages."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

INSTALL_CONFIG = "pipeline-install-config"
# The driver of 2.14 drops `optional` of Secrets and ConfigMaps as environment (tools/kfp_versions.sh).
KNOWS_OPTIONAL = (2, 15)


def backend_version(read: Callable[[str], Mapping[str, Any] | None], namespace: str) -> tuple[int, int] | None:
    """(major, minor), from the ConfigMap that its manifests write (`appVersion`); None where that does not say.

    Args:
        read: the object at a path of the Kubernetes API; None where there is none, empty where it may not be read.
        namespace: of the runs; Kubeflow is there or, where there are profiles, in `kubeflow`.
    """
    for place in dict.fromkeys((namespace, "kubeflow")):
        found = read(f"/api/v1/namespaces/{place}/configmaps/{INSTALL_CONFIG}") or {}
        if match := re.match(r"v?(\d+)\.(\d+)\b", str((found.get("data") or {}).get("appVersion", ""))):
            return int(match[1]), int(match[2])
    return None
