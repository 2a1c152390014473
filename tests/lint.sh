#!/usr/bin/env bash
# clang-tidy with .clang-tidy over bilevel/, or over the files named. Needs clang-tidy.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cmake/setup.sh

command -v clang-tidy >/dev/null || fail "clang-tidy is missing (Debian: apt-get install clang-tidy)."
cmake -S . -B build/lint -G Ninja -DCMAKE_EXPORT_COMPILE_COMMANDS=ON -DCMAKE_CXX_COMPILER=clang++ \
  -DBILEVEL_PRECOMPILE_HEADERS=OFF -DBILEVEL_BUILD_TESTS=OFF -DBILEVEL_BUILD_EXAMPLES=OFF \
  -DBILEVEL_WITH_TORCH=OFF >build/lint.log 2>&1 || { tail -20 build/lint.log; fail "Configuring failed."; }
if (($#)); then files=("$@"); else mapfile -t files < <(git ls-files 'bilevel/*.cc' ':!bilevel/torch'); fi
printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 1 clang-tidy -p build/lint --quiet
