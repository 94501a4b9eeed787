#!/usr/bin/env bash
# Pins the base image to what its tag names now, in the Dockerfile and the bake file: update_base.sh [CHECKOUT]
# The digest is part of every image's hash, so a new one rebuilds them all.
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"

name=$(sed -n 's/^ARG BASE_IMAGE=\([^@]*\).*/\1/p' images/Dockerfile)
digest=$(docker buildx imagetools inspect "$name" --format '{{.Manifest.Digest}}')
if ! [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]]; then
  echo "$name: the registry names no digest, but ${digest:-nothing}" >&2
  exit 1
fi
sed -i "s|^ARG BASE_IMAGE=.*|ARG BASE_IMAGE=$name@$digest|" images/Dockerfile
sed -i "s|\(\"BASE_IMAGE\": {\"default\": \"\)[^\"]*|\1$name@$digest|" images/docker-bake.json
echo "base image: $name@$digest"
