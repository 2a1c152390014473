#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cmake/setup.sh

case ${1:-} in
  -h | --help)
    cat <<'HELP'
Usage: examples/run.sh [arguments of tune_bundle_adjustment]

Installs what is missing (Debian, as root or with sudo), builds the examples in build/, fetches a
scene of the "Bundle Adjustment in the Large" collection and tunes its bundle adjustment.
HELP
    exit 0
    ;;
esac

install_requirements
examples/fetch_bal.sh
build examples
say "Running build/examples/tune_bundle_adjustment."
build/examples/tune_bundle_adjustment build/data/problem-16-22106-pre.txt "$@"
