#!/usr/bin/env bash
# Compiles every package with other versions of kfp and says what differs from the pinned one's: kfp_versions.sh [VERSION ...]
# Each version gets an environment of its own below build/kfp/.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=$(command -v uv || echo .venv/bin/uv)
[ $# -gt 0 ] || set -- 2.14.6 2.15.2 2.16.1
.venv/bin/python pipeline.py compile --out build/kfp/pinned >/dev/null
for version in "$@"; do
  folder=build/kfp/$version
  mkdir -p "$folder"
  printf 'kfp==%s\nkfp-kubernetes==%s\n' "$version" "$version" >"$folder/overrides.txt"
  [ -x "$folder/venv/bin/python" ] || "$uv" venv --quiet --python .venv/bin/python "$folder/venv"
  "$uv" pip install --quiet --python "$folder/venv/bin/python" --overrides "$folder/overrides.txt" \
    --editable ".[pipeline]"
  "$folder/venv/bin/python" pipeline.py compile --out "$folder/packages" >/dev/null
  .venv/bin/python - "$version" build/kfp/pinned "$folder/packages" <<'PYTHON'
import sys
from pathlib import Path

import yaml

version, pinned, other = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
differ = []
for package in sorted(pinned.glob("*.yaml")):
    ours, theirs = (list(yaml.safe_load_all((folder / package.name).read_text())) for folder in (pinned, other))
    for documents in (ours, theirs):
        documents[0].pop("sdkVersion", None)
    if ours != theirs:
        differ.append(package.stem)
same = len(list(pinned.glob("*.yaml"))) - len(differ)
print(f"kfp {version}: {same} packages are the same" + (f", {', '.join(differ)} differ" if differ else ""))
sys.exit(bool(differ))
PYTHON
done
