"""Talking to a Kubeflow Pipelines endpoint: upload a package, start a run, read an earlier run.

Endpoint and credentials as kfp's own client takes them (KF_PIPELINES_ENDPOINT, a token in KF_PIPELINES_TOKEN, ...).
"""

from __future__ import annotations

import os
import subprocess
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from llava import __version__
from llava.errors import SettingsError, UserError
from llava.pipelines.executions import Execution, executions

T = TypeVar("T")


class ServiceError(UserError):
    """The endpoint could not be reached, or refused."""


class ServiceNotFound(ServiceError):
    """The endpoint knows no such thing."""


@dataclass(frozen=True)
class RemoteRun:
    """What the service says of a run."""

    run: str
    pipeline: str
    root: str
    state: str
    arguments: Mapping[str, Any]


class Service:
    """One endpoint.

    Args:
        host: URL of the Kubeflow Pipelines API; None: KF_PIPELINES_ENDPOINT.
        namespace: profile namespace of a multi-user installation.

    Raises:
        SettingsError: no endpoint is known.
        ServiceError: it does not answer.
    """

    def __init__(self, host: str | None, namespace: str = "kubeflow") -> None:
        self.host = host or os.environ.get("KF_PIPELINES_ENDPOINT", "")
        if not self.host:
            raise SettingsError("no Kubeflow Pipelines endpoint; give --host or set KF_PIPELINES_ENDPOINT")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            from kfp import Client
        token = os.environ.get("KF_PIPELINES_TOKEN")
        # Where there are profiles, experiments live in one; where there are none, the API refuses a namespace.
        self.profile = namespace if self._probe(token) else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self._client = self._asking(lambda: Client(host=self.host, namespace=namespace, existing_token=token))

    def submit(
        self,
        package: Path,
        arguments: Mapping[str, Any],
        *,
        experiment: str,
        name: str,
        root: str | None,
        cache: bool,
        service_account: str | None,
    ) -> str:
        """Start a run of a package; returns its id."""
        result = self._asking(
            lambda: self._client.create_run_from_pipeline_package(
                str(package),
                arguments=dict(arguments),
                run_name=name,
                experiment_name=experiment,
                pipeline_root=root,
                enable_caching=cache,
                service_account=service_account,
                namespace=self.profile,
            )
        )
        return str(result.run_id)

    def ask(self, call: Callable[[Any], T], what: str = "request") -> T:
        """Anything else that kfp's client can do.

        Raises:
            ServiceError: the endpoint does not answer, or refuses; `what` is named where there is no such thing.
        """
        return self._asking(lambda: call(self._client), what)

    def find_experiment(self, name: str) -> str | None:
        """Id of an experiment; None when nobody, or not one alone, has this name."""
        try:
            found = self._asking(
                lambda: self._client.get_experiment(experiment_name=name, namespace=self.profile),
                f"experiment {name!r}",
            )
        except ValueError:  # kfp's own, for a name that nobody or several have
            return None
        return str(found.experiment_id)

    def runs_of(self, experiment: str) -> list[str]:
        """Ids of every run of an experiment, given by its id."""
        found: list[str] = []
        token = ""
        while True:
            page = self._asking(
                lambda token=token: self._client.list_runs(  # type: ignore[misc]
                    page_token=token, page_size=100, experiment_id=experiment
                ),
                f"experiment {experiment}",
            )
            found += [str(run.run_id) for run in page.runs or []]
            token = page.next_page_token or ""
            if not token:
                return found

    def upload(self, package: Path, pipeline: str, version: str) -> tuple[str, str]:
        """Upload a package as a version of a pipeline, which is made when it is new; returns both ids."""
        known = self._asking(lambda: self._client.get_pipeline_id(pipeline))
        if known is None:
            made = self._asking(lambda: self._client.upload_pipeline(str(package), pipeline_name=pipeline))
            known = made.pipeline_id
        uploaded = self._asking(lambda: self._client.upload_pipeline_version(str(package), version, pipeline_id=known))
        return str(known), str(uploaded.pipeline_version_id)

    def run(self, run: str) -> RemoteRun:
        """What the service knows of a run.

        Raises:
            ServiceError: no such run, or the endpoint does not answer.
        """
        found = self._asking(lambda: self._client.get_run(run), f"run {run!r}")
        spec = found.pipeline_spec or {}
        spec = spec.get("pipeline_spec", spec)
        config = found.runtime_config
        return RemoteRun(
            run=str(found.run_id),
            pipeline=str(spec.get("pipelineInfo", {}).get("name", "")),
            root=str((config and config.pipeline_root) or spec.get("defaultPipelineRoot", "")),
            state=str(found.state),
            arguments=dict((config and config.parameters) or {}),
        )

    def executions(self, run: str) -> list[Execution]:
        """What the stages of a run read and wrote, as far as the API knows; empty where it does not say."""
        try:
            found = self._asking(
                lambda: self._client._run_api.api_client.call_api(
                    f"/apis/v1beta1/runs/{run}",
                    "GET",
                    header_params={"Accept": "application/json"},
                    auth_settings=["Bearer"],
                    response_type="object",
                    _return_http_data_only=True,
                ),
                f"run {run!r}",
            )
        except ServiceError:
            return []  # a backend without its older API; the store knows too
        runtime = (found or {}).get("pipeline_runtime") or {}
        return executions(str(runtime.get("workflow_manifest") or ""))

    def url(self, run: str) -> str:
        """Where a person sees a run."""
        return f"{self.host.rstrip('/')}/#/runs/details/{run}"

    def _probe(self, token: str | None) -> bool:
        """One question of our own first: kfp's client asks five times, with a traceback for each.

        Returns:
            Whether it is a multi-user installation.
        """
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            reply = httpx.get(f"{self.host.rstrip('/')}/apis/v2beta1/healthz", headers=headers, timeout=30)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServiceError(f"{self.host}: no answer: {error}") from error
        if reply.status_code in (401, 403):
            raise ServiceError(
                f"{self.host}: refused ({reply.status_code}): {_short(reply.text)}; set KF_PIPELINES_TOKEN?"
            )
        if reply.status_code != 200:
            raise ServiceError(f"{self.host}: health check failed ({reply.status_code}): {_short(reply.text)}")
        try:
            said = reply.json()
            # The UI answers this path itself, with its own names (frontend/server/handlers/healthz.ts).
            return bool(said.get("multi_user", said.get("apiServerMultiUser")))
        except (ValueError, AttributeError) as error:
            raise ServiceError(
                f"{self.host}: the health check answered {_short(reply.text)[:80]!r}; is it the address of the API?"
            ) from error

    def _asking(self, call: Callable[[], T], what: str = "request") -> T:
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return call()
        except ApiException as error:
            said = _reason(error)
            if error.status == 404:
                raise ServiceNotFound(f"{self.host}: {what}: there is none ({said})") from error
            if error.status in (401, 403):
                raise ServiceError(f"{self.host}: refused ({error.status}): {said}; set KF_PIPELINES_TOKEN?") from error
            raise ServiceError(f"{self.host}: {what} failed ({error.status}): {said}") from error
        except (HTTPError, OSError) as error:
            raise ServiceError(f"{self.host}: no answer: {error}") from error


def version_name() -> str:
    """What an uploaded version is called: our version and the commit."""
    folder = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = time.strftime("%Y%m%d-%H%M%S")
    return f"{__version__}+{commit}"


def _reason(error: Any) -> str:
    body = error.body if isinstance(error.body, str) else (error.body or b"").decode("utf-8", "replace")
    return _short(body or str(error.reason))


def _short(text: str) -> str:
    return " ".join(text.split())[:300]
