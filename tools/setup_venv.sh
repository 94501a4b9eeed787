#!/usr/bin/env bash
# Makes or brings up to date a virtual environment of this project: setup_venv.sh DIR EXTRAS
#
#   DIR     where it lies (.venv)
#   EXTRAS  comma-separated extras of pyproject.toml (expansion,train,export,pipeline,dev)
#
# PYTHON         interpreter to use; default: the first of python3.11, 3.12, 3.13, python3 that is 3.11 to 3.13
# TORCH_BACKEND  passed to uv as --torch-backend (cpu, cu130, auto); default: what the package index offers
# UV_FIND_LINKS  a folder or page of wheels to look into first
set -euo pipefail

venv=${1:?usage: setup_venv.sh DIR EXTRAS}
extras=${2:?usage: setup_venv.sh DIR EXTRAS}
uv_version=0.13.9
cd "$(dirname "$0")/.."

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do
    if fits "$candidate"; then echo "$candidate"; return; fi
  done
  # uv can bring an interpreter of its own where the system has none.
  if command -v uv >/dev/null 2>&1; then echo "${PYTHON:-3.11}"; return; fi
  echo "no Python 3.11, 3.12 or 3.13 found (looked at: ${PYTHON:-python3.11 python3.12 python3.13 python3 python});" \
    "install one, or name it: make PYTHON=/path/to/python3.11" >&2
  return 1
}

if ! { [ -x "$venv/bin/python" ] && fits "$venv/bin/python"; }; then
  python=$(find_python)
  echo "making $venv with $python"
  if command -v uv >/dev/null 2>&1; then
    uv venv --quiet --python "$python" "$venv"
  else
    "$python" -m venv "$venv" || {
      echo "python's venv module is incomplete; on Debian and Ubuntu: apt-get install python3-venv" >&2
      exit 1
    }
  fi
fi

if command -v uv >/dev/null 2>&1; then
  uv=uv
else
  [ -x "$venv/bin/uv" ] || "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$uv_version"
  uv=$venv/bin/uv
fi

echo "installing [$extras] into $venv (the first time takes a few minutes)"
"$uv" pip install --quiet --python "$venv/bin/python" ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"} \
  --constraint constraints.txt --editable ".[$extras]"
