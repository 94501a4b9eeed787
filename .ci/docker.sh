#!/usr/bin/env bash
# The tests that need a Docker engine: uses the one there is, or starts one of its own where that can be had (root, Debian).
# Where neither is possible it says so and leaves with 0: the rest of the suite stands on its own.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "docker tests: $*"; }

folder=$(mktemp -d "${TMPDIR:-/tmp}/llava-docker.XXXXXX")
engine=
registry_pid=
clean() {
  [ -z "$registry_pid" ] || kill "$registry_pid" 2>/dev/null || true
  if [ -n "$engine" ]; then
    kill "$engine" 2>/dev/null || true
    # The engine unmounts its layers before it goes; until then the folder cannot be removed.
    for _ in $(seq 60); do kill -0 "$engine" 2>/dev/null || break; sleep 1; done
  fi
  rm -rf "$folder" 2>/dev/null || true
}
trap clean EXIT

install() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || return 1
  apt-get update -qq >/dev/null 2>&1 || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >"$folder/apt.log" 2>&1
}

start_engine() {
  command -v dockerd >/dev/null 2>&1 && [ -x /usr/bin/docker ] || install docker.io iptables || return 1
  # No bridge and no firewall rules: containers of the tests have the host's network while building and none after.
  dockerd --data-root "$folder/data" --exec-root "$folder/exec" --host "unix://$folder/docker.sock" \
    --pidfile "$folder/dockerd.pid" --bridge=none --iptables=false >"$folder/dockerd.log" 2>&1 &
  engine=$!
  export DOCKER_HOST="unix://$folder/docker.sock"
  for _ in $(seq 30); do
    "$DOCKER" info >/dev/null 2>&1 && return 0
    kill -0 "$engine" 2>/dev/null || break
    sleep 1
  done
  tail -n 3 "$folder/dockerd.log"
  return 1
}

# The newest client is not always the one that fits: it may lack the build plugin.
DOCKER=docker
if [ -x /usr/bin/docker ] && ! docker buildx version >/dev/null 2>&1; then DOCKER=/usr/bin/docker; fi
export DOCKER
if ! "$DOCKER" info >/dev/null 2>&1; then
  if [ ! -x /usr/bin/docker ]; then install docker.io iptables || true; fi
  if [ -x /usr/bin/docker ]; then DOCKER=/usr/bin/docker; fi
  start_engine || { say "NOT RUN: no engine answers and none could be started"; exit 0; }
fi

BASE_IMAGE=${BASE_IMAGE:-python:3.11-slim-bookworm}
if ! "$DOCKER" image inspect "$BASE_IMAGE" >/dev/null 2>&1 && ! timeout 90 "$DOCKER" pull -q "$BASE_IMAGE" >/dev/null 2>&1; then
  say "$BASE_IMAGE cannot be pulled; making a base image from Debian's packages"
  command -v debootstrap >/dev/null 2>&1 || install debootstrap || { say "NOT RUN: no base image"; exit 0; }
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$folder/base" >"$folder/base.log" 2>&1 ||
    { tail -n 3 "$folder/base.log"; say "NOT RUN: no base image"; exit 0; }
  # Downloads inside a build trust whom this machine trusts.
  certificates=/etc/ssl/certs/ca-certificates.crt
  cp "$certificates" "$folder/base$certificates"
  rm -rf "$folder"/base/var/cache/apt/archives/*.deb "$folder"/base/var/lib/apt/lists/*
  BASE_IMAGE=llava-base:ci
  tar -C "$folder/base" -c . | "$DOCKER" import \
    --change "ENV PIP_CERT=$certificates SSL_CERT_FILE=$certificates REQUESTS_CA_BUNDLE=$certificates UV_HTTP_TIMEOUT=180" \
    - "$BASE_IMAGE" >/dev/null
  rm -rf "$folder/base"
fi
export BASE_IMAGE TRAIN_LOCK=train-cpu.txt

# Wheels that the package index lacks (torch for the CPU), from the folder pip is told to look into.
wheels=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}
if [ -d "$wheels" ]; then
  tar -C "$wheels" -c . | "$DOCKER" import - llava-wheels:ci >/dev/null
  export EXTRA_WHEELS=llava-wheels:ci TORCH_BACKEND=
fi

# A registry of our own to push to.
if ! command -v docker-registry >/dev/null 2>&1; then install docker-registry || say "no docker-registry: pushing is not tested"; fi
if command -v docker-registry >/dev/null 2>&1; then
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  cat >"$folder/registry.yml" <<YAML
version: 0.1
storage: {filesystem: {rootdirectory: $folder/registry}}
http: {addr: "127.0.0.1:$port"}
YAML
  docker-registry serve "$folder/registry.yml" >"$folder/registry.log" 2>&1 &
  registry_pid=$!
  export LLAVA_TEST_REGISTRY="127.0.0.1:$port/llava"
fi

export LLAVA_DOCKER_ARGS="--network=host" LLAVA_DOCKER_TESTS=1
make --no-print-directory test-docker
