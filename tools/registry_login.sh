#!/usr/bin/env bash
# Logs in to the registry that REGISTRY_PREFIX (host/path) lies in: registry_login.sh
#
# REGISTRY_USER, REGISTRY_PASSWORD   for it
# GITHUB_TOKEN                       serves as the password for GitHub's own registry, and is sent to no other
set -euo pipefail
host=${REGISTRY_PREFIX:?host and path of the images}
host=${host%%/*}
password=${REGISTRY_PASSWORD:-}
if [ -z "$password" ] && [ "$host" = ghcr.io ]; then password=${GITHUB_TOKEN:-}; fi
if [ -z "$password" ]; then
  echo "no password for $host; set the variable REGISTRY_USER and the secret REGISTRY_PASSWORD of this repository" >&2
  exit 1
fi
printf %s "$password" | docker login "$host" --username "${REGISTRY_USER:?user of $host}" --password-stdin
