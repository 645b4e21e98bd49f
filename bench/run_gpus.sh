#!/usr/bin/env bash
# How much faster several GPUs of this machine train than one, at the shape of Qwen3-0.6B with Parallax and 4096 tokens a
# row, bf16, steps as graphs: the median step of each number of GPUs with AdamW and Muon, and the ratios to the first
# number. Takes half a minute a number, and writes nothing but what it prints.
#
# usage: bench/run_gpus.sh [--steps N] PROGRAM [GPUS...]
#   --steps  of each run, of which the first five are not counted [30]; the device is waited for every five
#   PROGRAM  build/parallax, or the parallax.sh of tools/pack_for_gpu.sh
#   GPUS     numbers of GPUs, each measured by itself [1 2]
set -euo pipefail
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2 && exit 2; }
steps=30
while [[ ${1:-} == -* ]]; do
    [[ $1 == --steps && ${2:-} =~ ^[1-9][0-9]+$ ]] || usage
    steps=$2
    shift 2
done
[ $# -ge 1 ] || usage
program=$(realpath "$1")
shift
counts=("$@")
[ $# -gt 0 ] || counts=(1 2)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
shape=(--hidden-size 1024 --intermediate-size 3072 --layers 28 --heads 16 --kv-heads 8 --head-dim 128
    --vocab-size 151936 --context 4096 --no-mask-documents --val-fraction 0)
# More than all steps of the most GPUs read: the end of an epoch would be a step that is no graph.
most=$(printf '%s\n' "${counts[@]}" | sort -n | tail -n 1)
head -c $((steps * most * 50000)) /dev/urandom | base64 -w 100 >"$work/text.txt"

# logged RUN: how many steps its log holds.
logged() {
    local count
    count=$(grep -c '"kind":"step"' "$work/$1/log.jsonl" 2>/dev/null) || true
    echo "${count:-0}"
}

# measure GPUS OPTIMIZER: trains until enough steps are logged, ends the run before it writes a checkpoint (the memory
# of its GPUs meanwhile is shown), and prints the median step; fails where the run does. The GPUs' processes share the
# cores, which draw the weights.
measure() {
    local gpus=$1 optimizer=$2 run=$1-$2
    rm -rf "${work:?}/$run"
    OMP_NUM_THREADS=$((($(nproc) + gpus - 1) / gpus)) \
        "$program" train --data "$work/text.txt" "${shape[@]}" --batch "$rows" --gpus "$gpus" --optimizer "$optimizer" \
        --device cuda --dtype bf16 --steps 100000 --checkpoint-every 0 --log-every 5 --out "$work/$run" \
        >"$work/$run.out" 2>"$work/$run.err" &
    local pid=$!
    for _ in $(seq 900); do
        [ "$(logged "$run")" -lt "$steps" ] && kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    local memory
    memory=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader 2>/dev/null | head -n "$gpus" | paste -sd' ' || true)
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    sleep 1
    if [ "$(logged "$run")" -lt "$steps" ]; then
        echo "$run: $(logged "$run") steps; $(tail -qn 2 "$work/$run.out" "$work/$run.err" | paste -sd' ')"
        return 1
    fi
    sed -n 's/.*"kind":"step".*"seconds":\([0-9.e-]*\),.*/\1/p' "$work/$run/log.jsonl" | sed -n "6,${steps}p" | sort -g |
        awk -v run="$run" -v tokens=$((gpus * rows * 4096)) -v memory="$memory" '{ t[NR] = $1 }
            END { m = t[int((NR + 1) / 2)]
                  printf "%-10s %.1f ms a step (median of %d, %.1f to %.1f), %.0f tokens/s, memory %s\n", run, 1000 * m,
                         NR, 1000 * t[1], 1000 * t[NR], tokens / m, memory }' | tee -a "$work/table"
    sed -n 's/.*"step":\(1\|15\|'"$steps"'\),.*"loss":\([0-9.]*\).*/step \1 loss \2/p' "$work/$run/log.jsonl" | paste -sd';'
}

"$program" --version
# As many rows as a GPU holds.
for rows in 8 4 2; do
    if measure "${counts[0]}" adamw; then break; fi
done
[ -s "$work/table" ]
for gpus in "${counts[@]:1}"; do measure "$gpus" adamw; done
for gpus in "${counts[@]}"; do measure "$gpus" muon; done
echo "rows of 4096 tokens a GPU: $rows"
cat "$work/table"
awk '{ split($1, part, "-"); gpus = part[1]; time[gpus, part[2]] = $2; if (NR == 1) first = gpus
       if (part[2] == "muon") printf "muon on %d: %.1f ms a step more than adamw\n", gpus, $2 - time[gpus, "adamw"]
       if (gpus != first) printf "%s: %d GPUs give %.3f times the tokens of %d\n", part[2], gpus,
                                 gpus / first * time[first, part[2]] / $2, first }' "$work/table"
