#!/usr/bin/env bash
# Puts problem-16-22106-pre.txt, a scene of the "Bundle Adjustment in the Large" collection, into
# build/data/. It is part of the source package of ceres-solver, which apt fetches from the machine's
# own mirrors; lists and caches go to a temporary folder, so that apt's state stays as it was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

name=problem-16-22106-pre.txt
is_whole() {
  echo "e128b6b076399db26007a92323d98fe7b48db2a31089240273f40f582e612a91  $1" |
    sha256sum --check --status 2>/dev/null
}
is_whole "build/data/$name" && exit 0

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
mkdir -p "$temporary"/{sources,lists/partial,cache/archives/partial} build/data
shopt -s nullglob
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
  [[ ! -f $file ]] || sed -nE 's/^[[:space:]]*deb([[:space:]])/deb-src\1/p' "$file"
done >"$temporary/sources/sources.list"
for file in /etc/apt/sources.list.d/*.sources; do
  sed -E 's/^types:.*/Types: deb-src/I' "$file" >"$temporary/sources/$(basename "$file")"
done
apt=(apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$temporary/sources"
  -o Dir::State::lists="$temporary/lists" -o Dir::Cache="$temporary/cache"
  -o APT::Sandbox::User=root -o Acquire::Retries=2 -o Acquire::http::Timeout=30)

echo "Fetching $name out of the source package of ceres-solver."
if ! (cd "$temporary" && "${apt[@]}" update && "${apt[@]}" source --download-only --tar-only ceres-solver) \
  >"$temporary/log" 2>&1; then
  grep 'Failed to fetch' "$temporary/log" | head -3 >&2 || true
  echo "The scene could not be fetched: apt reaches no mirror with the sources of ceres-solver." >&2
  exit 1
fi
tar -xJOf "$temporary"/ceres-solver_*.orig.tar.xz --wildcards "*/data/$name" >"$temporary/$name"
is_whole "$temporary/$name" || { echo "The scene in the source package is not the expected one." >&2; exit 1; }
mv "$temporary/$name" "build/data/$name"
