#!/usr/bin/env bash
# clang-tidy with .clang-tidy over bilevel/, or over the files named. Installs it where it is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cmake/setup.sh

install_requirements
install_clang
command -v clang-tidy >/dev/null || apt_install clang-tidy || fail "clang-tidy is missing."
mkdir -p build
cmake -S . -B build/lint -G Ninja -DCMAKE_EXPORT_COMPILE_COMMANDS=ON -DCMAKE_CXX_COMPILER=clang++ \
  -DBILEVEL_PRECOMPILE_HEADERS=OFF -DBILEVEL_BUILD_TESTS=OFF -DBILEVEL_BUILD_EXAMPLES=OFF \
  -DBILEVEL_WITH_MPI=OFF -DBILEVEL_WITH_TORCH=OFF >build/lint.log 2>&1 || { tail -20 build/lint.log; fail "Configuring failed."; }
if (($#)); then files=("$@"); else mapfile -t files < <(git ls-files 'bilevel/*.cc' ':!bilevel/mpi' ':!bilevel/torch'); fi
printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 1 clang-tidy -p build/lint --quiet
