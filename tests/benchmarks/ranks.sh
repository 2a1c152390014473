#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source cmake/setup.sh

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  cat <<'HELP'
Usage: tests/benchmarks/ranks.sh [ROUNDS]

64 equal recordings on 1, 2 and 7 processes of MPI, one after the other, ROUNDS times (5): seconds of
the solves, medians of their ratios within a round, and the machine's load, by
examples/18_many_machines.cc. BILEVEL_EXAMPLES names a folder with it built; else it is built in build/.
HELP
  exit 0
fi
rounds=${1:-5} recordings=64 positions=500
if [[ -z ${BILEVEL_EXAMPLES:-} ]]; then
  build 18_many_machines
  BILEVEL_EXAMPLES=build/examples
fi

# seconds PROCESSES
seconds() {
  mpirun --oversubscribe --allow-run-as-root --bind-to none -n "$1" \
    "$BILEVEL_EXAMPLES/18_many_machines" "$recordings" "$positions" |
    sed -n 's/^[0-9]* processes, \([0-9.]*\) s.*/\1/p'
}
for ((round = 0; round < rounds; ++round)); do
  echo "$(seconds 1) $(seconds 2) $(seconds 7) $(cut -d' ' -f1 /proc/loadavg)"
done | awk '
  function median(values, n, i, j, t) {
    for (i = 2; i <= n; ++i) for (j = i; j > 1 && values[j - 1] > values[j]; --j) {
      t = values[j]; values[j] = values[j - 1]; values[j - 1] = t
    }
    return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2
  }
  BEGIN { printf "%10s %10s %10s %10s\n", "1 process", "2", "7", "load" }
  { printf "%10.2f %10.2f %10.2f %10.1f\n", $1, $2, $3, $4; two[NR] = $1 / $2; seven[NR] = $3 / $2 }
  END {
    printf "1 over 2 processes: %.2f (target 1.7)\n7 over 2: %.2f (target at most 1.2)\n",
      median(two, NR), median(seven, NR)
  }'
