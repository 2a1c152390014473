#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source cmake/setup.sh

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  cat <<'HELP'
Usage: tests/benchmarks/pairs.sh [--quick]

Whether what is learned holds on what it has not seen: noise learned from one recording and tested on
another, both ways, and on every other tenth of the same; with and without a tenth of false loop
closures (--quick: without). Real recordings, and eight made pairs: odometry and loops simulated along
trajectories of KITTI, the user's sigmas off by factors that are drawn. Each by the rule that does not
lose, and by the score alone, for five minutes at most. Rewrites the table between the "pairs" markers
of tests/benchmarks/README.md. Half an hour. Needs the recordings in BILEVEL_DATA_DIR; ../shared/data is
taken where it exists.
HELP
  exit 0
fi
false_loops=(0 0.1)
[[ ${1:-} == --quick ]] && false_loops=(0)
find_data
[[ -n ${BILEVEL_DATA_DIR:-} ]] || fail "There is no data: set BILEVEL_DATA_DIR."
graphs=$BILEVEL_DATA_DIR/posegraph poses=$BILEVEL_DATA_DIR/kitti_poses
build bilevel_tune
out=build/benchmarks/pairs seconds=300
mkdir -p "$out"
: >"$out/rows.tsv"

declare -A graph=(
  [kitti_00]=$graphs/kitti_00.g2o.gz [kitti_02]=$graphs/kitti_02.g2o.gz
  [manhattan]=$graphs/manhattanOlson3500.g2o.gz [ring]=$graphs/ring.g2o.gz)
declare -A truth=(
  [kitti_00]=$poses/00.txt.gz [kitti_02]=$poses/02.txt.gz
  [manhattan]=$graphs/manhattanOlson3500_nodes_groundTruth.dat.gz
  [ring]=$graphs/ring_groundtruth.g2o.gz)

# The value KEY of OBJECT (empty: of the whole) in a JSON file.
value() {
  awk -v object="${2:+\"$2\": {}" -v key="\"$3\": " '
    object == "" { inside = 1 }
    !inside && (i = index($0, object)) { inside = 1; $0 = substr($0, i + length(object)) }
    inside && (i = index($0, key)) {
      $0 = substr($0, i + length(key))
      if (!sub(/^"/, "")) sub(/[,}].*/, ""); else sub(/"[^"]*$/, "")
      print; exit }' "$1"
}
# One of a program's verdicts by the rule, and by the score alone, into a row.
row() {
  local name=$1 verdict=$2 rule=$3 json=$4 plain=$5 key
  local fields=("$name" "$(value "$json" "" loops)")
  for key in before learned low high verdict; do fields+=("$(value "$json" "$verdict" "$key")"); done
  fields+=("$([[ ! -f $plain ]] || value "$plain" "$verdict" learned)" "$(value "$json" "" "$rule" | sed -E 's/.*The rule that does not lose: //; s/\. (The maximum|What the data|This holds).*/./')" "$(value "$json" true_sigmas test)")
  (IFS=$'\t'; echo "${fields[*]}") | tee -a "$out/rows.tsv" | cut -f 1-8
}
# The score alone does not end in time where a graph of thousands of poses has false loops.
run() {
  rm -f "$2"
  timeout "$1" "${@:3}" --json="$2" >"$2.log" 2>&1 || (($? == 3 || $? == 4)) ||
    { say "FAILED or not over in $1 s: ${*:3}, see $2.log"; return 1; }
}
learn() {
  local name=$1 json=$out/${1//[^A-Za-z0-9]/_}
  shift
  run 900 "$json.json" "$@" || return 0
  run "$seconds" "$json.plain.json" "$@" --nosafe || true
  if [[ $2 == range ]]; then
    row "$name" verdict_plain rule_plain "$json.json" "$json.plain.json"
    row "$name, calibrated" verdict_calibrated rule_calibrated "$json.json" "$json.plain.json"
  else
    row "$name" verdict rule "$json.json" "$json.plain.json"
  fi
}

say "from, to, share of false loops; loops, before, learned, interval, verdict, by the score alone"
for share in "${false_loops[@]}"; do
  for pair in "kitti_00 kitti_02" "kitti_02 kitti_00" "manhattan ring" "ring manhattan" \
    kitti_00 kitti_02 manhattan ring; do
    read -r from to <<<"$pair"
    arguments=("${graph[$from]}" --truth="${truth[$from]}" --false_loops="$share")
    [[ -z $to ]] || arguments+=(--test="${graph[$to]}" --test_truth="${truth[$to]}")
    learn "$from, ${to:-its other tenths}, $share" \
      build/examples/bilevel-tune pose-graph "${arguments[@]}"
  done
  seed=0
  for pair in "00 02" "00 08" "02 08" "06 00" "06 02" "09 00" "07 09" "06 07"; do
    read -r a b <<<"$pair"
    ((++seed))
    for way in "$a $b" "$b $a"; do
      read -r from to <<<"$way"
      learn "made $seed: $from, $to, $share" build/examples/bilevel-tune pose-graph --seed="$seed" \
        --simulate --along="$poses/$from.txt.gz" --test_along="$poses/$to.txt.gz" --false_loops="$share"
    done
  done
done
for train in Plaza1 Plaza2; do
  other=Plaza$((3 - ${train#Plaza}))
  range=(build/examples/bilevel-tune range "$BILEVEL_DATA_DIR/range_slam/$train")
  learn "$train, $other" "${range[@]}" --test="$BILEVEL_DATA_DIR/range_slam/$other"
  learn "$train, its second half" "${range[@]}"
done

table=$out/table.md
awk -F '\t' -v seconds="$seconds" '
  { ratio = $4 / $3; sum += ratio; ++n
    if (ratio > worst) { worst = ratio; where = $1 }
    lost += ratio > 1.05
    if (ratio > 1.05) losses = losses sprintf("- %s: %+.1f %%%s\n", $1, 100 * (ratio - 1), \
      $10 == "" ? "" : sprintf("; by the noise that was simulated %+.1f %%", 100 * ($10 / $3 - 1)))
    ended = $8 != ""; alone = ended ? $8 / $3 : 1
    if (ended) { sum_alone += alone; ++n_alone; lost_alone += alone > 1.05 }
    if (alone > worst_alone) { worst_alone = alone; where_alone = $1 }
    rows[n] = sprintf("| %s | %s | %.4g | %.4g | %+.1f %% | %+.3g to %+.3g | %s | %s |", $1, $2 == "" ? "-" : $2, \
                      $3, $4, 100 * (ratio - 1), $5, $6, $7, ended ? sprintf("%+.1f %%", 100 * (alone - 1)) : "not in " seconds " s")
    if (alone < 0.95 * ratio) forgone[++m] = sprintf("- %s: %+.1f %% by the score alone. %s", $1, 100 * (alone - 1), $9)
  }
  END {
    printf "Of %d, the rule loses more than 5 %% on %d (worst: %+.1f %%, %s), the score alone on %d (worst: %+.1f %%, %s). ", \
      n, lost, 100 * (worst - 1), where, lost_alone, 100 * (worst_alone - 1), where_alone
    printf "Mean of learned / before: %.3f by the rule, %.3f by the score alone.\n\n", sum / n, sum_alone / n_alone
    print "| learned on, tested on, false loops | loops | before [m] | learned [m] | change | 95 % interval | verdict | by the score alone |"
    print "|---|---|---|---|---|---|---|---|"
    for (i = 1; i <= n; ++i) print rows[i]
    if (losses != "") printf "\nLosses of more than 5 %%:\n\n%s", losses
    print "\nGains forgone, of more than 5 %, and why:\n"
    for (i = 1; i <= m; ++i) print forgone[i]
  }' "$out/rows.tsv" | tee "$table"
awk -v table="$table" '
  /<!-- pairs: begin -->/ { print; print ""; while ((getline line < table) > 0) print line; print ""; skip = 1 }
  /<!-- pairs: end -->/ { skip = 0 }
  !skip { if ($0 !~ /<!-- pairs: begin -->/) print }' tests/benchmarks/README.md >"$out/README.md"
cp "$out/README.md" tests/benchmarks/README.md
