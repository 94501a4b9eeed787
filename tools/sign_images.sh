#!/usr/bin/env bash
# Signs every image that images.lock.json pins, by digest, with the identity of the workflow that runs this (cosign's
# keyless signing: no key to keep): sign_images.sh
#
# To check one:  cosign verify --certificate-oidc-issuer ISSUER --certificate-identity-regexp '/images.yml@' REFERENCE
set -euo pipefail
cd "$(dirname "$0")/.."

"${PYTHON:-.venv/bin/python}" -m tools.images references | while IFS='=' read -r _ reference; do
  cosign sign --yes "$reference"
done
