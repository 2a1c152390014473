#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source cmake/setup.sh

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  cat <<'HELP'
Usage: tests/benchmarks/run.sh [NAME...]

Builds the benchmarks in build/, runs those named (adjoint, growth, ...; all of them if none is) and
rewrites the table between the "benchmarks" markers of tests/benchmarks/README.md, and of the
README.md at the top if it has them, from the last output of each in build/benchmarks/.

Needs Google Benchmark (libbenchmark-dev). BILEVEL_DATA_DIR names a folder with the sphere graphs;
../shared/data is taken where it exists.
HELP
  exit 0
fi

if [[ -z ${BILEVEL_DATA_DIR:-} && -d ../shared/data ]]; then
  BILEVEL_DATA_DIR=$(cd ../shared/data && pwd)
  export BILEVEL_DATA_DIR
fi
names=("$@")
if ((${#names[@]} == 0)); then
  for source in tests/benchmarks/*_benchmark.cc; do
    name=${source##*/}
    names+=("${name%_benchmark.cc}")
  done
fi
mkdir -p build/benchmarks
generator=()
[[ -f build/CMakeCache.txt ]] || generator=(-G Ninja)
cmake -S . -B build "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DBILEVEL_BUILD_BENCHMARKS=ON \
  >build/configure.log 2>&1 || { tail -30 build/configure.log; fail "Configuring failed."; }
for name in "${names[@]}"; do
  [[ -f tests/benchmarks/${name}_benchmark.cc ]] || fail "There is no ${name}_benchmark.cc."
  build "${name}_benchmark"
  say "Running ${name}_benchmark."
  "build/tests/benchmarks/${name}_benchmark" | tee "build/benchmarks/$name.txt"
done

# Rows of two kinds: "what   0.123   (target 0.15)" below a title that begins with a number, and
# Google Benchmark's with counters ratio and target.
table=build/benchmarks/table.md
{
  echo "| figure | measured | target |"
  echo "|---|---|---|"
  for output in build/benchmarks/*.txt; do
    name=${output##*/}
    awk -v name="${name%.txt}" '
      /^[0-9]+ / { title = $0; sub(/,.*/, "", title); title = title ": " }
      /\(target / {
        target = $0; sub(/.*\(target /, "", target); sub(/\)[^)]*$/, "", target)
        what = $0; sub(/ *\(target .*/, "", what)
        value = what; sub(/.* /, "", value)
        sub(/ +[^ ]+$/, "", what); sub(/^ +/, "", what)
        printf "| %s: %s%s | %s | %s |\n", name, title, what, value, target
      }
      / ratio=/ && / target=/ {
        what = $1; sub(/\/iterations:.*/, "", what); sub(/\/manual_time/, "", what)
        value = $0; sub(/.* ratio=/, "", value); sub(/ .*/, "", value)
        target = $0; sub(/.* target=/, "", target); sub(/ .*/, "", target)
        printf "| %s: %s | %s | %s |\n", name, what, value, target
      }' "$output"
  done
  echo
  echo "$(date +%Y-%m-%d), $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), one thread."
} >"$table"
for page in tests/benchmarks/README.md README.md; do
  grep -q '<!-- benchmarks: begin -->' "$page" || continue
  awk -v table="$table" '
    /<!-- benchmarks: end -->/ { skip = 0 }
    !skip
    /<!-- benchmarks: begin -->/ { print ""; while ((getline line < table) > 0) print line; print ""; skip = 1 }
  ' "$page" >build/benchmarks/page.md
  cat build/benchmarks/page.md >"$page"
  say "Rewrote the table in $page."
done
cat "$table"
