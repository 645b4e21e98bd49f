#!/usr/bin/env bash
# Measures this project's attention kernels on the first GPU and, in the same run, those that they are compared
# with; writes what bench/results/ keeps of a run: JSON lines and tables, the card, its driver and the commands.
#
# usage: bench/run_gpu.sh [--parallax COMMAND] [--peer PEER_ATTENTION.PY] [--kernel NAME] --out FOLDER [PART...]
#   --parallax  the program, or the parallax.sh of a folder made by tools/pack_for_gpu.sh [build/parallax]
#   --peer      a script that times cuDNN's softmax attention; without it no ratios are printed
#   --kernel    this kernel instead of the library's choice
#   PART        decode, cold, grid, paged, tokens, f8, forward, backward, deterministic, offset [all of them]
set -euo pipefail
parallax=build/parallax peer='' out='' kernel=() parts=()
while [ $# -gt 0 ]; do
    case $1 in
    --parallax) parallax=$2 && shift ;;
    --peer) peer=$2 && shift ;;
    --kernel) kernel=(--kernel "$2") && shift ;;
    --out) out=$2 && shift ;;
    -*) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    *) parts+=("$1") ;;
    esac
    shift
done
[ -n "$out" ] || { echo "run_gpu.sh: --out: needs a folder" >&2; exit 2; }
[ ${#parts[@]} -gt 0 ] || parts=(decode cold grid paged tokens f8 forward backward deterministic offset)
mkdir -p "$out"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$out/card.txt"
"$parallax" --version | tee -a "$out/card.txt"
: >"$out/commands.txt"

# run FILE COMMAND...: notes the command, and keeps and shows what it prints.
run() {
    local file=$1
    shift
    echo "$*" >>"$out/commands.txt"
    "$@" | tee "$out/$file"
}

# peers FILE ARGUMENT...: times the peers, unless they were timed before or there is none.
peers() {
    local file=$1
    shift
    [ -n "$peer" ] && [ ! -e "$out/$file" ] || return 0
    run "$file" python3 "$peer" "$@" --layout bthd >/dev/null
}

# ours NAME PEERS ARGUMENT...: NAME.txt and NAME.jsonl, with ratios where the file PEERS exists.
ours() {
    local name=$1 file=$out/$2
    shift 2
    [ -e "$file" ] || file=none
    run "$name.txt" "$parallax" bench attention --device cuda "${kernel[@]}" "$@" --peer "$file" \
        --json "$out/$name.jsonl"
}

measure_decode() { peers peer-decode.jsonl decode && ours decode peer-decode.jsonl --pass decode; }
measure_cold() { peers peer-cold.jsonl decode --cold && ours cold peer-cold.jsonl --pass decode --cold; }
measure_grid() {
    local shapes
    shapes=$("$parallax" bench attention --grid 216 --list-shapes)
    # shellcheck disable=SC2086 # one argument a shape
    peers peer-grid.jsonl decode --shapes $shapes
    ours grid peer-grid.jsonl --pass decode --grid 216 --mechanism parallax
}
measure_paged() {
    peers peer-decode.jsonl decode
    ours lengths peer-decode.jsonl --pass decode --lengths
    for page in 16 64; do ours "page-$page" peer-decode.jsonl --pass decode --page "$page"; done
}
measure_tokens() {
    for tokens in 2 4 8; do ours "tokens-$tokens" none --pass decode --tokens "$tokens"; done
}
measure_f8() { ours f8 none --pass decode --cache f8e4m3; }
measure_forward() { peers peer-train.jsonl train && ours forward peer-train.jsonl --pass forward; }
measure_backward() { peers peer-train.jsonl train && ours backward peer-train.jsonl --pass backward; }
measure_deterministic() {
    peers peer-train.jsonl train
    ours deterministic peer-train.jsonl --pass backward --deterministic
}
measure_offset() { ours offset none --pass forward --probe-offset 8; }

for part in "${parts[@]}"; do
    declare -F "measure_$part" >/dev/null || { echo "run_gpu.sh: there is no part \"$part\"" >&2; exit 2; }
    "measure_$part"
done
