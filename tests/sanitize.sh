#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cmake/setup.sh

case ${1:-} in
  address) preset=asan ;;
  thread) preset=tsan ;;
  *)
    cat <<'HELP'
Usage: tests/sanitize.sh address|thread [argument of ctest...]

Builds the library and its tests under the sanitizers of addresses and undefined behaviour, or of
threads, with assertions on (Eigen's too), and runs the tests. Needs clang++; builds in build/asan
or build/tsan. Arguments choose tests: -R bad_input_test.
HELP
    [[ ${1:-} == -h || ${1:-} == --help ]] && exit 0
    exit 1
    ;;
esac
shift

command -v clang++ >/dev/null || fail "clang++ is missing (apt-get install clang)."
install_requirements
if [[ -z ${BILEVEL_DATA_DIR:-} && -d ../shared/data ]]; then
  BILEVEL_DATA_DIR=$(cd ../shared/data && pwd)
  export BILEVEL_DATA_DIR
fi
mkdir -p "build/$preset"
say "Building in build/$preset/."
cmake --preset "$preset" -DCMAKE_CXX_COMPILER=clang++ -DBILEVEL_WITH_TORCH=OFF \
  >"build/$preset/configure.log" 2>&1 ||
  { tail -20 "build/$preset/configure.log"; fail "Configuring failed."; }
cmake --build "build/$preset" --parallel "$(nproc)" || fail "The build failed."
say "Running the tests."
export ASAN_OPTIONS=strict_string_checks=1:detect_stack_use_after_return=1:${ASAN_OPTIONS:-}
export UBSAN_OPTIONS=print_stacktrace=1:${UBSAN_OPTIONS:-}
export TSAN_OPTIONS=suppressions=$PWD/tests/sanitize_thread.supp:${TSAN_OPTIONS:-}
ctest --test-dir "build/$preset" --output-on-failure --parallel "$(nproc)" "$@"
