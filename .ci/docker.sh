#!/usr/bin/env bash
# What needs a Docker engine: .ci/docker.sh [COMMAND ...], by default the tests of the images (make test-docker).
#
# Uses the engine that answers, or starts one of its own where that can be had (root, Debian's packages), and a registry.
# Where the base image cannot be pulled, one is made of Debian's packages. What it starts it stops, what it stores it
# removes, also when it is interrupted; what a killed run left behind, the next one clears away.
# Where no engine can be had it says why and leaves with 0: the rest of the suite stands on its own.
#
# LLAVA_CI_DOCKER   0: leave it out; 1: an engine must be had, or this fails
# LLAVA_DOCKER_GIB  free disk to ask for (default 12)
# TMPDIR            where all of it lies (default /tmp)
#
# shellcheck disable=SC2317  # what a trap calls is reached
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "docker tests: $* [${SECONDS} s]"; }
not_run() {
  say "NOT RUN: $*"
  if [ "${LLAVA_CI_DOCKER:-}" = 1 ]; then exit 1; else exit 0; fi
}
if [ "${LLAVA_CI_DOCKER:-}" = 0 ]; then
  say "left out, as LLAVA_CI_DOCKER=0 asks"
  exit 0
fi
[ $# -gt 0 ] || set -- make --no-print-directory test-docker

# --- ends well -------------------------------------------------------------------------------------------------------

# Whether a process id is still that of a program which was started for FOLDER.
runs_for() { [ -n "$2" ] && grep -aqF "$1" "/proc/$2/cmdline" 2>/dev/null; } # FOLDER PID

# Ends the process whose id stands in a file below FOLDER: asked once (an engine takes a third time for "at once"), made
# to after a minute.
stop() { # FOLDER FILE
  local pid
  pid=$(cat "$1/$2" 2>/dev/null) || return 0
  runs_for "$1" "$pid" || return 0
  kill "$pid" 2>/dev/null || true
  for _ in $(seq 120); do
    runs_for "$1" "$pid" || return 0
    sleep 0.5
  done
  kill -KILL "$pid" 2>/dev/null || true
}

# Ends what a run started and removes what it stored.
tear_down() { # FOLDER
  stop "$1" registry.pid
  stop "$1" dockerd.pid
  # Without its engine, containerd goes by itself; not so when the engine was killed.
  stop "$1" exec/containerd/containerd.pid
  awk -v below="$1/" 'index($2, below) == 1 { print $2 }' /proc/self/mounts | sort -r | while read -r mounted; do
    umount -l "$mounted" 2>/dev/null || true
  done
  rm -rf "$1" 2>/dev/null || true
}

# An engine that is not ours keeps nothing of ours: images (and containers of an interrupted run), build cache.
references() { "$DOCKER" image ls --format '{{.Repository}}:{{.Tag}}' | grep -E '(^|/)llava-[a-z]+:' | sort; }
cached() { "$DOCKER" system df -v --format '{{range .BuildCache}}{{println .ID}}{{end}}' 2>/dev/null | sort; }
free_engine() {
  local reference containers cache
  comm -13 "$folder/references" <(references) | while read -r reference; do
    containers=$("$DOCKER" ps -aq --filter "ancestor=$reference")
    # shellcheck disable=SC2086  # one id a word
    [ -z "$containers" ] || "$DOCKER" rm -f $containers >/dev/null || true
    "$DOCKER" rmi -f "$reference" >/dev/null || true
  done
  cache=$(comm -13 "$folder/cached" <(cached) | sed '/^$/d' | paste -sd '|')
  [ -z "$cache" ] || "$DOCKER" builder prune --all --force --filter "id=^($cache)\$" >/dev/null || true
}

work=
foreign=
clean() {
  trap '' HUP INT TERM
  if [ -n "$work" ]; then
    kill -- "-$work" 2>/dev/null || true
    for _ in $(seq 20); do kill -0 -- "-$work" 2>/dev/null || break; sleep 0.5; done
    kill -KILL -- "-$work" 2>/dev/null || true
  fi
  [ -z "$foreign" ] || free_engine || true
  tear_down "$folder"
}

place=${TMPDIR:-/tmp}
# The id of the run that a folder belongs to is part of its name.
for left in "$place"/llava-docker.*.*; do
  owner=${left##*/llava-docker.}
  if [ -O "$left" ] && ! runs_for docker.sh "${owner%%.*}"; then
    say "removing $left, which a run that was killed left behind"
    tear_down "$left"
  fi
done
folder=$(mktemp -d "$place/llava-docker.$$.XXXXXX")
mkdir "$folder/tmp"
trap clean EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs a command in a process group of its own and waits for it, so that a signal to this script is acted on at once.
attend() {
  local code=0
  set -m
  "$@" </dev/null &
  work=$!
  set +m
  wait "$work" || code=$?
  work=
  return "$code"
}

# Starts a program that stays, its output in NAME.log below the folder.
start() { # NAME COMMAND...
  local name=$1
  shift
  : >"$folder/$name.log" # there before anyone reads it
  set -m
  "$@" </dev/null >"$folder/$name.log" 2>&1 &
  set +m
}

install() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || return 1
  attend apt-get update -qq >/dev/null 2>&1 || true
  attend env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y -qq --no-install-recommends "$@" \
    >"$folder/apt.log" 2>&1
}

# --- a client and an engine ------------------------------------------------------------------------------------------

free_gib() { df -P -B1G "$1" | awk 'NR == 2 { print $4 }'; }
need_gib=${LLAVA_DOCKER_GIB:-12}
enough() { # FOLDER
  [ "$(free_gib "$1")" -ge "$need_gib" ] || not_run "$1 has $(free_gib "$1") GiB free, building and running takes $need_gib"
}
enough "$folder"

# Images for CPUs take torch's CPU build: from a folder of wheels, or from the index that has it. Better known now than
# after a minute of building.
wheels=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}
uv=$(command -v uv || ls .venv/bin/uv 2>/dev/null || true)
if [ -z "${EXTRA_WHEELS:-}" ] && [ ! -d "$wheels" ] && [ -n "$uv" ]; then
  torch=$(sed -n 's/^\(torch==[^ ]*+cpu\).*/\1/p' images/locks/export.txt)
  backend=${TORCH_BACKEND-cpu}
  attend timeout 120 "$uv" pip install --dry-run --no-deps --quiet --python python3 --target "$folder/probe" \
    ${backend:+--torch-backend "$backend"} "$torch" >"$folder/torch.log" 2>&1 ||
    not_run "$torch is nowhere to be had: $(grep -v '^ *$' "$folder/torch.log" | tail -n 1); name a folder that holds its" \
      "wheel (UV_FIND_LINKS) or an index that has it (UV_INDEX)"
fi

# The newest client is not always the one that fits: from 23 on it builds with a plugin only, which may be missing.
builds() {
  command -v "$1" >/dev/null 2>&1 || return 1
  "$1" buildx version >/dev/null 2>&1 && return 0
  local version
  version=$("$1" version --format '{{.Client.Version}}' 2>/dev/null) || true
  [ -n "$version" ] && [ "${version%%.*}" -lt 23 ]
}
choose_client() {
  local candidate
  for candidate in "${DOCKER:-docker}" /usr/bin/docker; do
    if builds "$candidate"; then DOCKER=$candidate; return; fi
  done
  return 1
}

start_engine() {
  [ "$(id -u)" = 0 ] || not_run "no engine answers, and only root can start one"
  command -v dockerd >/dev/null 2>&1 || install docker.io iptables ||
    not_run "no engine answers, and docker.io cannot be installed: $(tail -n 1 "$folder/apt.log" 2>/dev/null)"
  # The engine makes sockets below, and the path of a socket has 107 bytes.
  [ "${#folder}" -le 64 ] || not_run "$folder is too long for the engine's sockets; set TMPDIR to a shorter path"
  # A file system of its own goes in one step: where a disk discards what is freed, removing a hundred thousand files takes
  # minutes. Without loop devices a folder does as well.
  mkdir "$folder/data"
  { truncate -s "${need_gib}G" "$folder/disk" && mkfs.ext4 -q -O ^has_journal "$folder/disk" &&
    mount -o loop "$folder/disk" "$folder/data"; } >"$folder/disk.log" 2>&1 || rm -f "$folder/disk"
  # No bridge and no firewall rules: builds have the host's network, containers none.
  export DOCKER_HOST="unix://$folder/docker.sock"
  start dockerd dockerd --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/dockerd.pid" \
    --host "$DOCKER_HOST" --bridge=none --iptables=false
  local engine=$!
  for _ in $(seq 60); do
    "$DOCKER" info >/dev/null 2>&1 && break
    kill -0 "$engine" 2>/dev/null || not_run "the engine does not start: $(tail -n 1 "$folder/dockerd.log")"
    sleep 0.5
  done
  case $("$DOCKER" info --format '{{.Driver}}' 2>/dev/null) in
    "") not_run "the engine does not answer: $(tail -n 1 "$folder/dockerd.log")" ;;
    vfs) not_run "on this file system the engine would copy the whole image for every layer; set TMPDIR to ext4 or xfs" ;;
  esac
}

choose_client || { install docker.io iptables && choose_client; } ||
  not_run "no Docker client that can build (buildx, or a version before 23), and docker.io cannot be installed"
export DOCKER
# Images made here must be there for the next build, which only the engine's own builder promises.
export BUILDX_BUILDER=default
if "$DOCKER" info >/dev/null 2>&1; then
  storage=$("$DOCKER" info --format '{{.DockerRootDir}}')
  [ ! -d "$storage" ] || enough "$storage"
  references >"$folder/references" || true
  cached >"$folder/cached"
  foreign=yes
  say "using the engine that answers"
else
  start_engine
  say "started an engine"
fi

# --- what images are made of -----------------------------------------------------------------------------------------

make_base() { # IMAGE
  command -v mmdebstrap >/dev/null 2>&1 || install mmdebstrap || return 1
  mkdir "$folder/base"
  # dpkg syncs each file to disk, which in memory costs nothing.
  mount -t tmpfs -o size=2g llava-docker "$folder/base" 2>/dev/null || true
  # Downloads inside a build trust whom this machine trusts.
  local certificates=/etc/ssl/certs/ca-certificates.crt
  attend env TMPDIR="$folder/base" mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-venv \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --customize-hook="copy-in $certificates ${certificates%/*}" bookworm "$folder/base/base.tar" >"$folder/base.log" 2>&1 &&
    attend "$DOCKER" import \
      --change "ENV PIP_CERT=$certificates SSL_CERT_FILE=$certificates REQUESTS_CA_BUNDLE=$certificates UV_HTTP_TIMEOUT=180" \
      "$folder/base/base.tar" "$1" >/dev/null || return 1
  umount "$folder/base" 2>/dev/null || rm -rf "$folder/base"
}

pinned=$(sed -n 's/^ARG BASE_IMAGE=//p' images/Dockerfile)
export BASE_IMAGE=${BASE_IMAGE:-$pinned} TRAIN_LOCK=train-cpu.txt
if ! "$DOCKER" image inspect "$BASE_IMAGE" >/dev/null 2>&1 &&
  ! attend timeout 90 "$DOCKER" pull -q "$BASE_IMAGE" >/dev/null 2>&1; then
  say "$BASE_IMAGE cannot be pulled; making a base image of Debian's packages"
  BASE_IMAGE=llava-base:ci
  make_base "$BASE_IMAGE" || not_run "no base image: $(tail -qn 1 "$folder/base.log" "$folder/apt.log" 2>/dev/null | head -n 1)"
fi

# Wheels that the package index lacks (torch for the CPU), from the folder pip is told to look into.
if [ -z "${EXTRA_WHEELS:-}" ] && [ -d "$wheels" ]; then
  tar -C "$wheels" -c . | "$DOCKER" import - llava-wheels:ci >/dev/null
  export EXTRA_WHEELS=llava-wheels:ci TORCH_BACKEND=
fi

# A registry to push to, on a port of its own choosing.
if command -v docker-registry >/dev/null 2>&1 || install docker-registry; then
  cat >"$folder/registry.yml" <<YAML
version: 0.1
log: {level: info}
storage: {filesystem: {rootdirectory: $folder/registry}}
http: {addr: "127.0.0.1:0"}
YAML
  start registry docker-registry serve "$folder/registry.yml"
  echo $! >"$folder/registry.pid"
  for _ in $(seq 60); do
    port=$(sed -n 's/.*listening on 127\.0\.0\.1:\([0-9]*\).*/\1/p' "$folder/registry.log" | head -n 1)
    [ -z "$port" ] || break
    sleep 0.5
  done
  [ -n "$port" ] || { say "the registry does not start: $(tail -n 1 "$folder/registry.log")"; exit 1; }
  export LLAVA_TEST_REGISTRY="127.0.0.1:$port/llava"
else
  say "docker-registry cannot be installed: pushing and pinning are NOT tested"
fi

# --- the work --------------------------------------------------------------------------------------------------------

say "engine, base image and registry are there; now: $*"
code=0
TMPDIR=$folder/tmp LLAVA_DOCKER_ARGS=--network=host LLAVA_DOCKER_TESTS=1 attend "$@" || code=$?
"$DOCKER" image ls --format '{{.Repository}} {{.Size}}' --filter 'reference=llava-*:dev' | sed 's/^/docker tests: image /'
if [ "$code" = 0 ]; then say "passed"; else say "FAILED with exit status $code"; fi
exit "$code"
