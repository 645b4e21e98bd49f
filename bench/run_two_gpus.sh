#!/usr/bin/env bash
# How much faster two GPUs train than one, at the shape of Qwen3-0.6B with Parallax and 4096 tokens a row, bf16: the
# median step of each, and the ratio. Takes two minutes and writes nothing but what it prints.
#
# usage: bench/run_two_gpus.sh PROGRAM      (build/parallax, or the parallax.sh of tools/pack_for_gpu.sh)
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
program=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
shape=(--hidden-size 1024 --intermediate-size 3072 --layers 28 --heads 16 --kv-heads 8 --head-dim 128
    --vocab-size 151936 --context 4096 --no-mask-documents --val-fraction 0)
steps=30 # of which the first five are not counted; the device is waited for every five
head -c 3000000 /dev/urandom | base64 -w 100 >"$work/text.txt"

# logged RUN: how many steps its log holds.
logged() {
    local count
    count=$(grep -c '"kind":"step"' "$work/$1/log.jsonl" 2>/dev/null) || true
    echo "${count:-0}"
}

# measure RUN GPUS ROWS OPTION...: trains until enough steps are logged, ends the run before it writes a checkpoint
# (the memory of both GPUs meanwhile is shown), and prints the median step; fails where the run does.
measure() {
    local run=$1 gpus=$2 rows=$3
    shift 3
    rm -rf "${work:?}/$run"
    "$program" train --data "$work/text.txt" "${shape[@]}" --batch "$rows" --gpus "$gpus" --device cuda --dtype bf16 \
        --steps 100000 --checkpoint-every 0 --log-every 5 --out "$work/$run" "$@" >"$work/$run.out" 2>"$work/$run.err" &
    local pid=$!
    for _ in $(seq 900); do
        [ "$(logged "$run")" -lt "$steps" ] && kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    local memory
    memory=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader 2>/dev/null | paste -sd' ' || true)
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
    sed -n 's/.*"step":\(1\|15\|30\),.*"loss":\([0-9.]*\).*/step \1 loss \2/p' "$work/$run/log.jsonl" | paste -sd';'
}

"$program" --version
# As many rows as one GPU holds.
for rows in 8 4 2; do
    if measure one-adamw 1 "$rows" --optimizer adamw; then break; fi
done
measure two-adamw 2 "$rows" --optimizer adamw
measure one-muon 1 "$rows" --optimizer muon
measure two-muon 2 "$rows" --optimizer muon
echo "rows of 4096 tokens a GPU: $rows"
cat "$work/table"
awk '{ split($1, part, "-"); time[part[1], part[2]] = $2 }
    END { for (pair in time) { split(pair, part, SUBSEP)
              if (part[1] == "one") printf "%s: two GPUs give %.3f times the tokens of one\n", part[2],
                                           2 * time[pair] / time["two", part[2]] } }' "$work/table"
