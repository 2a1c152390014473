#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source cmake/setup.sh

limit=-max_total_time=30
readers=()
while (($#)); do
  case $1 in
    -h | --help)
      cat <<'HELP'
Usage: tests/fuzz/run.sh [--seconds N | --runs N] [reader...]

Gives the readers of files (all, or those named) bytes that libFuzzer makes up, for 30 seconds each
or as said, under the sanitizers of addresses and undefined behaviour. They must accept what keeps
their header's promises, or refuse it in a sentence. Installs clang where it is missing; builds in build_fuzz/.

Exit code 1 where something was found: the input is then in build_fuzz/READER/ and shown again by
READER=<reader> build_fuzz/fuzz <input>. It belongs into tests/fuzz/corpus/<reader>/ with the fix.
HELP
      exit 0
      ;;
    --seconds | --runs)
      [[ ${2:-} =~ ^[0-9]+$ ]] || fail "$1 needs a number."
      if [[ $1 == --runs ]]; then limit=-runs=$2; else limit=-max_total_time=$2; fi
      shift 2
      ;;
    *)
      [[ $1 != -* && -d tests/fuzz/corpus/$1 ]] || fail "Unknown option or reader $1; see --help."
      readers+=("$1")
      shift
      ;;
  esac
done
((${#readers[@]})) || mapfile -t readers < <(ls tests/fuzz/corpus)

install_requirements
install_clang
say "Building in build_fuzz/."
mkdir -p build_fuzz
{ cmake -S tests/fuzz -B build_fuzz -G Ninja -DCMAKE_CXX_COMPILER=clang++ &&
  cmake --build build_fuzz; } >build_fuzz/build.log 2>&1 ||
  { tail -30 build_fuzz/build.log; fail "The build failed; its output is in build_fuzz/build.log."; }

TMPDIR=$(mktemp -d -p "$([[ -w /dev/shm ]] && echo /dev/shm || echo /tmp)")  # In memory.
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
say "Fuzzing ${#readers[@]} readers."
printf '%-14s %12s %12s  %s\n' reader executions 'per second' outcome
fuzz() {
  local reader=$1 work=build_fuzz/$1 outcome=clean
  mkdir -p "$work/corpus"
  READER=$reader build_fuzz/fuzz "$limit" -max_len=4096 -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 -artifact_prefix="$work/" "$work/corpus" "tests/fuzz/corpus/$reader" \
    >"$work/log" 2>&1 || outcome="FOUND, see $work/log"
  figure() { sed -n "s/^stat::$1: *//p" "$work/log"; }
  printf '%-14s %12s %12s  %s\n' "$reader" "$(figure number_of_executed_units)" \
    "$(figure average_exec_per_sec)" "$outcome"
  [[ $outcome == clean ]]
}
found=0
running=0
for reader in "${readers[@]}"; do
  fuzz "$reader" &
  ((++running < $(nproc))) && continue
  wait -n || found=1
  ((running--))
done
for (( ; running > 0; running--)); do wait -n || found=1; done
exit $found
