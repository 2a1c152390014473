#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source cmake/setup.sh

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  cat <<'HELP'
Usage: tests/benchmarks/pairs.sh [--quick]

Whether what is learned holds on what it has not seen: noise learned on one real recording and tested
on another, both ways, and on every other tenth of the same; with and without a tenth of false loop
closures (--quick: without). A line for each: rms errors with what was set by hand and with what was
learned, the 95 % interval of their difference, the verdict. Needs the recordings in
BILEVEL_DATA_DIR; ../shared/data is taken where it exists.
HELP
  exit 0
fi
false_loops=(0 0.1)
[[ ${1:-} == --quick ]] && false_loops=(0)
find_data
[[ -n ${BILEVEL_DATA_DIR:-} ]] || fail "There is no data: set BILEVEL_DATA_DIR."
graphs=$BILEVEL_DATA_DIR/posegraph poses=$BILEVEL_DATA_DIR/kitti_poses
build tune_pose_graph
build tune_range_slam
out=build/benchmarks/pairs
mkdir -p "$out"

declare -A graph=(
  [kitti_00]=$graphs/kitti_00.g2o.gz [kitti_02]=$graphs/kitti_02.g2o.gz
  [manhattan]=$graphs/manhattanOlson3500.g2o.gz [ring]=$graphs/ring.g2o.gz)
declare -A truth=(
  [kitti_00]=$poses/00.txt.gz [kitti_02]=$poses/02.txt.gz
  [manhattan]=$graphs/manhattanOlson3500_nodes_groundTruth.dat.gz
  [ring]=$graphs/ring_groundtruth.g2o.gz)

# The number KEY of OBJECT in a JSON file.
number() {
  awk -v object="\"$2\": {" -v key="\"$3\": " '
    index($0, object) { inside = 1 }
    inside && index($0, key) { sub(/.*: /, ""); sub(/[,}].*/, ""); gsub(/"/, ""); print; exit }' "$1"
}
# A program's verdict in a line, whatever its exit code.
row() {
  local name=$1 object=$2 json=$3
  printf '%-36s %9.4g %9.4g %+8.1f %% %+10.3g %+10.3g  %s\n' "$name" "$(number "$json" "$object" before)" \
    "$(number "$json" "$object" learned)" \
    "$(awk -v a="$(number "$json" "$object" before)" -v b="$(number "$json" "$object" learned)" \
      'BEGIN { print (a > 0 ? 100 * (b / a - 1) : 0) }')" \
    "$(number "$json" "$object" low)" "$(number "$json" "$object" high)" \
    "$(number "$json" "$object" verdict)"
}
learn() {
  local name=$1
  shift
  local json=$out/${name//[^A-Za-z0-9]/_}.json
  rm -f "$json"
  "$@" --summary_json="$json" >"$json.log" 2>&1 || (($? == 3 || $? == 4)) ||
    { printf '%-36s FAILED, see %s\n' "$name" "$json.log"; return; }
  row "$name" verdict "$json"
}

say "Learned on one, tested on another (rms; before, learned, change, 95 % interval)."
for share in "${false_loops[@]}"; do
  for pair in "kitti_00 kitti_02" "kitti_02 kitti_00" "manhattan ring" "ring manhattan" \
    kitti_00 kitti_02 manhattan ring; do
    read -r from to <<<"$pair"
    arguments=(--graph="${graph[$from]}" --truth="${truth[$from]}" --false_loops="$share")
    [[ -z $to ]] || arguments+=(--test_graph="${graph[$to]}" --test_truth="${truth[$to]}")
    learn "$from, ${to:-its other tenths}, $share false" \
      build/examples/tune_pose_graph --nobaselines "${arguments[@]}"
  done
done
learn "Plaza1, its second half" build/examples/tune_range_slam --nosearch
row "  with the wheels' scale and sideways" verdict_calibrated "$out/Plaza1__its_second_half.json" 2>/dev/null || true
