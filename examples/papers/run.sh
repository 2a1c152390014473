#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source cmake/setup.sh

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  cat <<'HELP'
Usage: examples/papers/run.sh [--quick] [experiment...]

Builds the experiments of papers in build/, runs those named (hyper_cleaning, news_regularization,
l2_tuning, adversarial_training, text_cleaning, hyper_representation, continual_learning; all if none
is) and rewrites their tables in examples/papers/RESULTS.md. Finished runs are kept in
build/papers/*.csv: an interrupted table is resumed, and deleting the file starts it anew. SEEDS
(default 5) and THREADS (1, which makes seconds those of the processor) are the environment's.

Data: BILEVEL_DATA_DIR, or the package manager; an experiment whose data is absent says how to get
it and is left out.
HELP
  exit 0
fi
quick=()
if [[ ${1:-} == --quick ]]; then
  quick=(--quick)
  shift
fi
experiments=("$@")
((${#experiments[@]})) || experiments=(hyper_cleaning news_regularization l2_tuning adversarial_training
  text_cleaning hyper_representation continual_learning)
install_requirements
build examples
if [[ -z ${BILEVEL_DATA_DIR:-} && -d ../shared/data ]]; then
  BILEVEL_DATA_DIR=$(cd ../shared/data && pwd)
  export BILEVEL_DATA_DIR
fi
out=build/papers
mkdir -p "$out"
common=(--seeds="${SEEDS:-5}" --num_threads="${THREADS:-1}" "${quick[@]}")

# experiment NAME TABLE ARGUMENTS...: runs it and puts what it prints between TABLE's markers.
experiment() {
  local name=$1 table=$2
  shift 2
  say "$table: $name $*"
  local text=$out/$table.txt
  if ! "build/examples/$name" "$@" >"$text"; then
    say "$table is left as it is."
    return 0
  fi
  grep -v ', seed [0-9]*:' "$text" || true
  ((${#quick[@]} == 0)) || return 0
  {
    echo '```'
    grep -v ', seed [0-9]*:' "$text" | sed '/./,$!d'
    echo '```'
    echo
    echo "$(date +%Y-%m-%d), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), seeds from 0 as the column of runs says, $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo); \`$name $*\`"
  } >"$out/$table.md"
  awk -v begin="<!-- $table: begin -->" -v end="<!-- $table: end -->" -v table="$out/$table.md" '
    $0 == end { skip = 0 }
    !skip
    $0 == begin { while ((getline line < table) > 0) print line; skip = 1 }
  ' examples/papers/RESULTS.md >"$out/page.md"
  cat "$out/page.md" >examples/papers/RESULTS.md
}

for name in "${experiments[@]}"; do
  case $name in
    hyper_cleaning)
      for dataset in mnist fashion_mnist; do
        experiment hyper_cleaning "hyper_cleaning_$dataset" --dataset="$dataset" "${common[@]}" \
          --csv="$out/hyper_cleaning.csv" --plot="$out/hyper_cleaning_$dataset.svg"
      done
      for dataset in mnist fashion_mnist; do
        ((${#quick[@]})) || experiment hyper_cleaning "hyper_cleaning_${dataset}_50k" \
          --dataset="$dataset" "${common[@]}" --seeds=2 --train=50000 --iterations=500 \
          --methods=soba,bome_gradient_T1 \
          --csv="$out/hyper_cleaning.csv" --plot="$out/hyper_cleaning_${dataset}_50k.svg"
      done
      ;;
    news_regularization)
      experiment news_regularization news_regularization "${common[@]}" \
        --csv="$out/news_regularization.csv" --plot="$out/news_regularization.svg"
      ;;
    l2_tuning)
      experiment l2_tuning l2_tuning "${common[@]}" --csv="$out/l2_tuning.csv" --plot="$out/l2_tuning.svg"
      ;;
    text_cleaning)
      for p in 0.2 0.4; do
        experiment text_cleaning "text_cleaning_p$p" --p="$p" "${common[@]}" \
          --csv="$out/text_cleaning.csv" --plot="$out/text_cleaning_p$p.svg"
      done
      ;;
    hyper_representation)
      experiment hyper_representation hyper_representation "${common[@]}" \
        --csv="$out/hyper_representation.csv" --plot="$out/hyper_representation.svg"
      ;;
    adversarial_training)
      abalone=()
      [[ -z ${BILEVEL_DATA_DIR:-} ]] || abalone=(--abalone="$BILEVEL_DATA_DIR/abalone/abalone.csv")
      experiment adversarial_training adversarial_training "${abalone[@]}" "${quick[@]}" \
        --num_threads="${THREADS:-1}" --plot="$out/adversarial_training.svg"
      ;;
    continual_learning)
      if [[ -x build/examples/continual_learning ]]; then
        experiment continual_learning continual_learning "${common[@]}" \
          --csv="$out/continual_learning.csv" --plot="$out/continual_learning.svg"
        ((${#quick[@]})) || experiment continual_learning continual_learning_3 "${common[@]}" --visits=3 \
          --methods=bome,aid --csv="$out/continual_learning_3.csv" --plot="$out/continual_learning_3.svg"
      else
        say "continual_learning needs LibTorch (libtorch-dev), which was not found."
      fi
      ;;
    *) fail "There is no experiment $name." ;;
  esac
done
