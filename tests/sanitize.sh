#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cmake/setup.sh

# What hands in the worst, and what runs on many threads.
quick=(bad_input_test exceptions_test null_errors_test determinism_test campaign_faults_test
  campaign_random_problems_test fuzz_corpus_test)

case ${1:-} in
  address) preset=asan ;;
  thread) preset=tsan ;;
  *)
    cat <<'HELP'
Usage: tests/sanitize.sh address|thread [--quick] [argument of ctest...]

Builds the library and its tests under the sanitizers of addresses and undefined behaviour, or of
threads, with assertions on (Eigen's too), and runs the tests; --quick a few, without building the
others. Installs clang where it is missing; builds in build/asan or build/tsan. Arguments choose tests: -R checkpoint_test.
HELP
    [[ ${1:-} == -h || ${1:-} == --help ]] && exit 0
    exit 1
    ;;
esac
shift
targets=(all)
chosen=()
if [[ ${1:-} == --quick ]]; then
  shift
  targets=("${quick[@]}")
  chosen=(-R "^($(IFS='|'; echo "${quick[*]}"))\$")
fi

install_requirements
install_clang
find_data
mkdir -p "build/$preset"
say "Building in build/$preset/."
cmake --preset "$preset" -DCMAKE_CXX_COMPILER=clang++ -DBILEVEL_WITH_MPI=OFF -DBILEVEL_WITH_TORCH=OFF \
  >"build/$preset/configure.log" 2>&1 ||
  { tail -20 "build/$preset/configure.log"; fail "Configuring failed; see build/$preset/configure.log."; }
cmake --build "build/$preset" --target "${targets[@]}" --parallel "$(nproc)" || fail "The build failed."
say "Running the tests."
export ASAN_OPTIONS=strict_string_checks=1:${ASAN_OPTIONS:-}
export OMP_THREAD_LIMIT=1  # CHOLMOD's threads are libgomp's, whose barriers the sanitizer does not see.
export UBSAN_OPTIONS=print_stacktrace=1:${UBSAN_OPTIONS:-}
ctest --test-dir "build/$preset" --output-on-failure --parallel "$(nproc)" "${chosen[@]}" "$@"
