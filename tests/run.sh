#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cmake/setup.sh

if (($#)); then
  [[ $1 == -h || $1 == --help ]] || fail "Unknown option $1; see --help."
  cat <<'HELP'
Usage: tests/run.sh

Installs what is missing (Debian, as root or with sudo), builds everything in build/ and runs all
tests, including the program in README.md and a project that uses the installed library.

BILEVEL_DATA_DIR names a folder with the data of the tests; ../shared/data is taken where it exists.
Tests whose data is absent are skipped and listed.
HELP
  exit 0
fi

install_requirements
examples/fetch_bal.sh || say "Tests that read this scene will be skipped."
find_data
build all
say "Running the tests."
rm -rf build/results
export GTEST_OUTPUT="xml:$PWD/build/results/"
list_skipped() {
  grep -rhoE '<skipped message="[^"]*' build/results 2>/dev/null |
    sed -E 's/.*:[0-9]+&#x0A;//; s/&#x0A;/ /g' | sort | uniq -c | sed 's/^ */Skipped tests: /' || true
}
ctest --test-dir build --output-on-failure --parallel "$(nproc)" |
  while IFS= read -r line; do
    if [[ $line == *'% tests passed'* ]]; then list_skipped; fi
    printf '%s\n' "$line"
  done
