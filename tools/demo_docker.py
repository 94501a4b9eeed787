"""The demo in containers: `python -m tools.demo_docker` builds the images and runs the same package under kfp's
DockerRunner, as harshly as a strict cluster would: a uid that no image knows, a read-only root file system, no
capabilities, no new privileges, no network.

Needs a Docker engine. Fails unless every stage ran and wrote its outputs under that uid: kfp takes a container that
went before its exit status was asked for as one that succeeded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo.run import BASE, base_hash, make_world, pipeline_parameters
from llava.errors import UserError
from tools.images.build import DOCKER

ROOT = Path(__file__).parents[1]
# Quick enough for CI; the figures that count are those of `make demo`.
SMALL = {
    "expand_mixture": "",
    "pretrain_overrides": json.dumps({"pretrain.max_steps": 6, "pretrain.save_every_steps": 3}),
    "finetune_overrides": json.dumps({"finetune.max_steps": 6, "finetune.save_every_steps": 3}),
    "evaluate_limit": 24,
    "threads_per_process": 2,
}
ARBITRARY_UID = 41234


def strict_arguments(world: Path, uid: int) -> dict[str, Any]:
    """Arguments of `docker run`, as docker-py names them."""
    mounts = [
        {"Type": "bind", "Source": str(path), "Target": str(path), "ReadOnly": True} for path in (world, BASE.resolve())
    ]
    return {
        # Group 0 is what OpenShift gives; files of the image must not depend on it either way.
        "user": f"{uid}:{uid}",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": {"/tmp": "rw,nosuid,nodev,size=2g,mode=1777", "/scratch": "rw,nosuid,nodev,size=2g,mode=1777"},
        "shm_size": "512m",
        "network_mode": "none",
        "mounts": mounts,
    }


def run(out: Path, package: str, overrides: Mapping[str, Any]) -> dict[str, float]:
    """Run the package in containers; seconds by what took them.

    Raises:
        UserError: a stage failed.
        RuntimeError: a stage left nothing, or not as the uid it ran under.
    """
    import pipeline
    from llava.local.run import LocalOptions, run_package
    from llava.pipelines.checks.spec import read_spec
    from llava.pipelines.package import compile_package
    from llava.pipelines.resources import ClusterOptions

    # Root may be anyone: then the containers run as a uid that owns nothing, and folders that kfp makes let it write.
    uid = os.getuid() or ARBITRARY_UID
    if os.getuid() == 0:
        os.umask(0)
    out.mkdir(parents=True, exist_ok=True)
    world = (out / "world").resolve()
    identity = make_world(world, 64, 12)
    compiled, _ = compile_package(pipeline.build, package, out, ClusterOptions())
    arguments = {**pipeline_parameters(world, {}), **SMALL, **overrides}
    spec = read_spec(compiled)
    known = spec["root"]["inputDefinitions"]["parameters"]
    if package != "full":
        # A part of the pipeline has a part of the parameters; the whole one must know them all.
        arguments = {name: value for name, value in arguments.items() if name in known}
    start = time.monotonic()
    record = run_package(
        compiled,
        arguments,
        LocalOptions(
            root=out / "pipeline",
            runner="docker",
            docker=strict_arguments(world, uid),
            environment={"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "2"},
            salt=f"{identity} {base_hash()}",
            cache=False,
        ),
    )
    seconds = {"run": time.monotonic() - start}
    executors = spec["deploymentSpec"]["executors"]
    stages = {name.removeprefix("exec-") for name in executors if "container" in executors[name]}
    if stages != set(record.ran):
        raise RuntimeError(f"stages that ran: {', '.join(record.ran)}; expected {', '.join(sorted(stages))}")
    for name, output in sorted(record.outputs.items()):
        path = Path(output.uri)
        # Metrics are numbers in the executor's answer; everything else is on disk.
        files = [file for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
        if not files and not name.endswith("metrics"):
            raise RuntimeError(f"{name}: nothing at {path}")
        wrong = [file for file in files if file.stat().st_uid != uid]
        if wrong:
            raise RuntimeError(f"{name}: {wrong[0]} belongs to uid {wrong[0].stat().st_uid}, not to {uid}")
        print(f"  {name:<24} {len(files)} files by uid {uid}")
    return seconds


def use_client_engine() -> None:
    """Let kfp ask the engine that the Docker client asks: kfp knows DOCKER_HOST only, the client has contexts too."""
    command = [DOCKER, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode == 0 and answer.stdout.strip():
        os.environ.setdefault("DOCKER_HOST", answer.stdout.strip())


def main() -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo_docker", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo-docker"), help="default %(default)s")
    parser.add_argument("--package", default="full", help="package to run (default %(default)s)")
    parser.add_argument("--docker-arg", action="append", default=[], help="passed to the image build; repeatable")
    options = parser.parse_args()
    command = [sys.executable, "-m", "tools.images", "build", "--tag", "dev"]
    command += [f"--docker-arg={argument}" for argument in options.docker_arg]
    # The engine's CPU is what the demo runs on.
    environment = {"TRAIN_LOCK": "train-cpu.txt", **os.environ}
    if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
        return 1
    use_client_engine()
    try:
        seconds = run(options.out, options.package, {})
    except UserError as error:
        print(f"demo_docker: {error}", file=sys.stderr)
        return 2
    print(json.dumps({name: round(value, 1) for name, value in seconds.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
