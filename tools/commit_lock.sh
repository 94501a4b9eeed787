#!/usr/bin/env bash
# Commits images.lock.json if it changed and pushes it to the branch it came from (images.yml calls this after a build).
# A push that came in between is rebased on; the lock is the only file this touches.
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"

if [ -z "$(git status --porcelain -- images.lock.json)" ]; then
  echo "images.lock.json is unchanged"
  exit 0
fi
branch=${GITHUB_REF_NAME:-$(git rev-parse --abbrev-ref HEAD)}
git -c user.name="${GIT_AUTHOR_NAME:-images}" -c user.email="${GIT_AUTHOR_EMAIL:-images@users.noreply.github.com}" \
  commit --quiet --message "Pin images built from ${REVISION:-$(git rev-parse HEAD)} [skip ci]" -- images.lock.json
for _ in 1 2 3; do
  if git push --quiet origin "HEAD:$branch"; then
    echo "pinned images on $branch"
    exit 0
  fi
  git -c user.name=images -c user.email=images@users.noreply.github.com pull --quiet --rebase origin "$branch"
done
echo "could not push images.lock.json to $branch" >&2
exit 1
