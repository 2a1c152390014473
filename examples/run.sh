#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cmake/setup.sh

case ${1:-} in
  -h | --help)
    cat <<'HELP'
Usage: examples/run.sh [example] [arguments of the example]

Installs what is missing (Debian, as root or with sudo), builds one example in build/ and runs it,
for instance bilevel-tune pose-graph --simulate. Without a name: fetches a scene of the "Bundle
Adjustment in the Large" collection and tunes its bundle adjustment.
HELP
    exit 0
    ;;
esac

install_requirements
if [[ ${1:-} == bilevel-tune ]]; then
  shift
  build bilevel_tune
  exec build/examples/bilevel-tune "$@"
fi
if [[ -n $(ls examples/{,studies/,papers/}"${1:-}.cc" 2>/dev/null) ]]; then
  name=$1
  shift
  build "$name"
  say "Running build/examples/$name."
  exec "build/examples/$name" "$@"
fi
examples/fetch_bal.sh
build bilevel_tune
say "Running build/examples/bilevel-tune bundle-adjustment."
build/examples/bilevel-tune bundle-adjustment build/data/problem-16-22106-pre.txt "$@"
