"""A training stage on several nodes: the stage's pod makes a TrainJob and stays with it; the nodes do the work.

Everything the nodes need lies in object storage: the job's description, the data, the checkpoints, and at the end the
result. So nothing but the TrainJob's status passes between this pod and the nodes, and a retried pod finds all of it
again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llava import storage
from llava.accelerators import ASKED
from llava.errors import SettingsError
from llava.launcher_paths import artifact_uri
from llava.parsing import Malformed, parse_json
from llava.validation import validate

if TYPE_CHECKING:
    from llava.multinode.api import KubernetesApi
    from llava.multinode.trainjob import NodeSettings
    from llava.training.job import Job, Result


def read_node_settings(text: str) -> NodeSettings:
    """The `train_job` setting.

    Raises:
        SettingsError: not JSON, an unknown field, a value out of range.
    """
    from llava.multinode.trainjob import NodeSettings

    try:
        value = parse_json(text) if text.strip() else {}
    except Malformed as error:
        raise SettingsError(f'train_job: {error}: {text!r}; expected e.g. {{"accelerators": 8}}') from error
    return validate(NodeSettings, value, "train_job")


def train_on_nodes(job: Job, train_job: str, processes: str, *, api: KubernetesApi | None = None) -> Result:
    """Run `job` on the nodes its recipe asks for, to its end.

    Args:
        job: what to train; its result and failures are placed below its checkpoints, where every node can write.
        train_job: the stage's setting of that name.
        processes: processes a node, or `auto`.
        api: client; None: this pod's.

    Raises:
        SettingsError: a place is local, or the settings are wrong; nothing has been made then.
        UserError: the job failed, was cancelled, or Kubernetes refused.
        WorkerCrashed: a rank failed by a bug of ours.
    """
    from llava.multinode.api import KubernetesApi
    from llava.multinode.follow import TrainJobFailed, run_train_job
    from llava.multinode.trainjob import TrainJobRequest
    from llava.multinode.trainjob import train_job as manifest_of
    from llava.training import launch
    from llava.training.job import Result

    settings = read_node_settings(train_job)
    # The launcher's copies of this pod's inputs are on no other node; the store is.
    job = job.model_copy(update={name: artifact_uri(getattr(job, name)) for name in ("data_uri", "projector_uri")})
    for name in ("data_uri", "images_uri", "projector_uri", "output_uri", "checkpoints_uri", "resume_uri"):
        place = getattr(job, name)
        if any(not storage.is_remote(part.strip()) for part in place.split(",") if part.strip()):
            raise SettingsError(
                f"{name}: found {place!r}; {job.train.nodes} nodes share nothing but object storage, "
                "so expected an s3:// URI"
            )
    place = storage.join(job.checkpoints_uri, "trainjob")
    shared = job.model_copy(
        update={"result_uri": storage.join(place, "result.json"), "failure_uri": storage.join(place, "failures")}
    )
    api = api or KubernetesApi()
    for item in list(storage.list_files(shared.failure_uri)):  # of an earlier attempt
        storage.delete(storage.join(shared.failure_uri, item.path))
    job_uri = storage.join(place, "job.json")
    shared.write(job_uri)

    pod_name = os.environ.get("LLAVA_POD_NAME", "")
    pod = api.get(f"/api/v1/namespaces/{api.namespace}/pods/{pod_name}") if pod_name else None
    image = os.environ.get("LLAVA_IMAGE", "")
    if not image:
        raise SettingsError("LLAVA_IMAGE is not set, so the nodes' image is not known; run a compiled package")
    run = job.run or job.output_uri
    request = TrainJobRequest(
        stage=job.stage,
        run=run,
        nodes=job.train.nodes,
        command=["python", "-m", "llava.multinode.train_node", "--job", job_uri, "--processes", processes],
        image=image,
        settings=settings,
        pod=pod or {},
        environment={"LLAVA_RUN": job.run, ASKED: str(settings.accelerators)},
    )
    try:
        run_train_job(api, manifest_of(request), poll_s=float(os.environ.get("LLAVA_TRAINJOB_POLL_S", "5")))
    except TrainJobFailed as error:
        if next(storage.list_files(shared.failure_uri), None) is None:
            raise
        cause = launch.explain(shared, 1)
        if isinstance(cause, launch.RankLost):  # which node, and why, only Kubernetes can say
            raise type(error)(f"{error}; {cause}") from error
        raise cause from error
    return validate(Result, storage.read_json(shared.result_uri), shared.result_uri)
