#!/usr/bin/env bash
# Commits images.lock.json, and the pin of the base image, if they changed, and pushes them to the branch they came from
# (images.yml calls this after a build). A push that came in between is rebased on; no other file is touched. Where the
# branch is protected, the commit comes as a pull request (by gh, with GH_TOKEN).
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"

files=(images.lock.json)
for file in images/Dockerfile images/docker-bake.json; do
  [ ! -f "$file" ] || files+=("$file")
done
if [ -z "$(git status --porcelain -- "${files[@]}")" ]; then
  echo "images.lock.json is unchanged"
  exit 0
fi
as=(-c user.name="${GIT_AUTHOR_NAME:-images}" -c user.email="${GIT_AUTHOR_EMAIL:-images@users.noreply.github.com}")
branch=${GITHUB_REF_NAME:-$(git rev-parse --abbrev-ref HEAD)}
revision=${REVISION:-$(git rev-parse HEAD)}
git "${as[@]}" commit --quiet --message "Pin images built from $revision [skip ci]" -- "${files[@]}"
for _ in 1 2 3; do
  if git push --quiet origin "HEAD:$branch"; then
    echo "pinned images on $branch"
    exit 0
  fi
  # What else the build left changed stays as it is.
  git "${as[@]}" pull --quiet --rebase --autostash origin "$branch"
done

echo "$branch takes no push; making a pull request" >&2
proposal=images-lock
git push --quiet --force origin "HEAD:refs/heads/$proposal"
open=$(gh pr list --head "$proposal" --base "$branch" --state open --json url --jq '.[].url')
if [ -z "$open" ]; then
  open=$(gh pr create --head "$proposal" --base "$branch" --title "Pin images built from ${revision:0:12}" \
    --body "What the images workflow built and pushed; merging it makes pipelines use these images.")
fi
echo "pinned images in $open"
