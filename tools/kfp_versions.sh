#!/usr/bin/env bash
# Holds the packages, as the pinned kfp compiles them, against other versions of Kubeflow: kfp_versions.sh [VERSION ...]
# Says what the version's API server and driver do not know of them (tools/kfp_fields.py), and what its own kfp would make
# of the pipelines instead. Each version gets an environment of its own below build/kfp/. Fails where one would be refused.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=$(command -v uv || echo .venv/bin/uv)
[ $# -gt 0 ] || set -- 2.14.6 2.15.2 2.16.1
.venv/bin/python pipeline.py compile --out build/kfp/pinned >/dev/null 2>&1
refused=0
for version in "$@"; do
  folder=build/kfp/$version
  mkdir -p "$folder"
  for package in kfp kfp-kubernetes kfp-pipeline-spec; do echo "$package==$version"; done >"$folder/overrides.txt"
  [ -x "$folder/venv/bin/python" ] || "$uv" venv --quiet --python .venv/bin/python "$folder/venv"
  "$uv" pip install --quiet --python "$folder/venv/bin/python" --overrides "$folder/overrides.txt" \
    --editable ".[pipeline]"
  echo "Kubeflow Pipelines $version, packages of the pinned kfp:"
  "$folder/venv/bin/python" tools/kfp_fields.py build/kfp/pinned/*.yaml || refused=1
  if "$folder/venv/bin/python" pipeline.py compile --out "$folder/packages" >"$folder/compile.log" 2>&1; then
    echo "  its own kfp compiles them too"
  else
    echo "  its own kfp compiles none that is sound: $(tail -n 1 "$folder/compile.log")"
  fi
done
exit "$refused"
