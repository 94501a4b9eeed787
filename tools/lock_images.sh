#!/usr/bin/env bash
# Writes images/locks/*.txt, the exact packages of each image with their hashes, from pyproject.toml and constraints.txt.
# The CPU locks name torch's CPU build; where the index lacks it, UV_FIND_LINKS or TORCH_BACKEND=cpu says where it is.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() { # NAME EXTRAS [uv options]
  local name=$1 extras
  IFS=, read -ra extras <<<"$2"
  shift 2
  uv pip compile pyproject.toml "${extras[@]/#/--extra=}" --constraint "$constraints" \
    --override images/overrides.txt --generate-hashes --no-header --no-annotate --python-version 3.11 \
    --python-platform x86_64-manylinux_2_28 --quiet --output-file "images/locks/$name.txt" "$@"
}

# Without the packages that images/overrides.txt pins otherwise.
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
grep -vE "^($(sed -nE 's/^([A-Za-z0-9._-]+)==.*/\1/p' images/overrides.txt | paste -sd'|'))==" constraints.txt >"$constraints"

cpu_torch=(--no-emit-find-links)
[ -z "${TORCH_BACKEND:-}" ] || cpu_torch+=(--torch-backend "$TORCH_BACKEND")

compile light expansion
compile train-cpu train,tracking "${cpu_torch[@]}"
compile export export "${cpu_torch[@]}"
# torch with CUDA is what the package index has; no folder of other wheels may come between.
# What needs a GPU (4-bit weights, fused kernels) is in this one alone.
UV_FIND_LINKS='' compile train train,tracking,qlora,liger

# The CPU build comes from a second index whose files are made again now and then: pinned by version, not by hash.
for lock in images/locks/train-cpu.txt images/locks/export.txt; do
  python3 - "$lock" <<'PYTHON'
import pathlib, re, sys
path = pathlib.Path(sys.argv[1])
path.write_text(re.sub(r"(?m)^(torch==\S+) \\\n(?:    --hash=.*\n?)+", r"\1\n", path.read_text()))
PYTHON
done
