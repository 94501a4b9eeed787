#!/usr/bin/env bash
# wait-for.sh URL: until it answers, two minutes at most
set -euo pipefail
for _ in $(seq 60); do
  curl -fsS "$1" >/dev/null 2>&1 && exit 0
  sleep 2
done
echo "$1 does not answer" >&2
exit 1
