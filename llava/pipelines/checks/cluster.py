"""The few questions to a cluster that a run's preflight asks, with the rights of the person who asks.

Kubeflow's own endpoint does not answer for Secrets and nodes, so this goes to the Kubernetes API: by kubeconfig, or
from a pod (a notebook) by its service account. Nothing is changed, and of a Secret only the names of its keys are
looked at.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from llava.errors import SettingsError, UserError

_TIMEOUT_S = (5, 15)  # to connect, to answer


class NotAsked(UserError):
    """The cluster could not be asked, or not about this; the message says why."""


class Forbidden(NotAsked):
    """The person who asks may not read this object."""


class Reader(Protocol):
    """Somewhere objects can be read from."""

    where: str

    def get(self, path: str) -> dict[str, Any] | None:
        """The object at an API path, None when there is none; `Forbidden` or `NotAsked` when it cannot be read."""


class Cluster:
    """One cluster, read only.

    Args:
        context: kubeconfig context; None: the current one, or this pod's cluster where there is no kubeconfig.

    Raises:
        NotAsked: there is neither kubeconfig nor pod.
        SettingsError: the kubeconfig has no such context, or cannot be read.
    """

    def __init__(self, context: str | None = None) -> None:
        from kubernetes import client, config

        settings = client.Configuration()
        files = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
        # An empty file is what is left where somebody points KUBECONFIG away on purpose.
        present = [name for name in files.split(os.pathsep) if Path(name).is_file() and Path(name).stat().st_size]
        try:
            if present or context:
                config.load_kube_config(
                    os.pathsep.join(present) or files, context=context, client_configuration=settings
                )
                chosen = context or config.list_kube_config_contexts(os.pathsep.join(present))[1]["name"]
                self.where = f"context {chosen!r} ({settings.host})"
            elif os.environ.get("KUBERNETES_SERVICE_HOST"):
                config.load_incluster_config(client_configuration=settings)
                self.where = f"this pod's cluster ({settings.host})"
            else:
                raise NotAsked("no kubeconfig")
        except config.ConfigException as error:
            raise SettingsError(f"{files}: {_one_line(error)}") from error
        settings.retries = False
        self._client = client.ApiClient(settings)

    def get(self, path: str) -> dict[str, Any] | None:
        """The object at an API path; None when there is none.

        Raises:
            Forbidden: no right to read it.
            NotAsked: no answer, or no valid credentials.
        """
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            found = self._client.call_api(
                path,
                "GET",
                header_params={"Accept": "application/json"},
                auth_settings=["BearerToken"],
                response_type="object",
                _return_http_data_only=True,
                _request_timeout=_TIMEOUT_S,
            )
        except ApiException as error:
            if error.status == 404:
                return None
            kind = Forbidden if error.status == 403 else NotAsked
            raise kind(f"{self.where} refused ({error.status} {error.reason})") from error
        except (HTTPError, OSError) as error:
            raise NotAsked(f"{self.where}: no answer: {_one_line(error)}") from error
        assert isinstance(found, dict), "Kubernetes answers with objects"
        return found


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
