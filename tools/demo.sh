#!/usr/bin/env bash
# The demonstration behind `make demo`: builds, then trains two small byte-level language models of equal size
# side by side on real text, one with Parallax attention and one with softmax attention, both with Muon and
# WSD, and prints what they reached and what the Parallax model writes.
#
# usage: tools/demo.sh [FILE|FOLDER]...      default: C headers under /usr/include
#
# A Parallax layer has one projection more than a softmax layer (W_R, as large as W_Q). The softmax model gets
# these parameters back as a wider feed-forward layer, so both models have the same number of parameters
# within 1 %. The number of steps is chosen from the measured speed, so that all of it, build included, takes
# about four and a half minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS
aim_seconds=270

say() { printf '\n== %s\n' "$*"; }

# ---- Build ------------------------------------------------------------------------------------------

say "building"
tools/install_dependencies.sh
cmake --preset default -DPLX_TESTS=OFF >/dev/null
cmake --build --preset default --target parallax | tail -n 1
parallax=build/parallax

# ---- Data -------------------------------------------------------------------------------------------

work=$(mktemp -d "${TMPDIR:-/tmp}/parallax-demo.XXXXXX")
trap 'rm -rf "$work"' EXIT
if [ $# -gt 0 ]; then
    data=("$@")
    text="$*"
else
    # About 12 MB of headers, evenly from all that there are. Links, not copies; paths make the names unique.
    data=("$work/headers")
    text="C headers under /usr/include"
    mkdir "$work/headers"
    find /usr/include -name '*.h' -type f -size -64k -printf '%s %p\n' | LC_ALL=C sort -k 2 >"$work/list"
    awk '{ size[NR] = $1; path[NR] = $2; total += $1 }
         END { every = int(total / 12000000) + 1; for (i = 1; i <= NR; i += every) print path[i] }' "$work/list" |
        while read -r header; do
            ln -s "$header" "$work/headers/$(tr / _ <<<"${header#/usr/include/}")"
        done
fi

# ---- Sizes ------------------------------------------------------------------------------------------

# What both models share. W_R has hidden_size * heads * head_dim = 128 * 128 weights a layer (and a norm gain of 64); a unit
# of the feed-forward layer has 3 * 128. So 43 more units carry the parameters of W_R.
# The rates are for a run of minutes: the paper's norm rate of 0.015 is for tens of thousands of steps, and with a zero
# gain on the probe's norm Parallax begins as softmax attention and opens its correction as it learns.
sizes=(--hidden-size 128 --layers 3 --heads 2 --kv-heads 1 --head-dim 64 --batch 16 --context 256
    --lr 0.01 --norm-lr 0.3 --probe-start zero-gain)
declare -A ffn=([parallax]=384 [softmax]=427)

# bf16 products where the processor has them: 1.2 times the speed here, sums and weights stay f32.
if grep -qE '(AVX-512|AMX) bf16 +yes' <<<"$("$parallax" info)"; then
    sizes+=(--dtype bf16)
fi

# field FILE KEY: a number from a file's last line, which is a JSON object.
field() { tail -n 1 "$1" | sed -n "s/.*\"$2\":\([-0-9.eE+]*\).*/\1/p"; }

"$parallax" bench step "${sizes[@]}" --intermediate-size "${ffn[parallax]}" --no-peer --json --repeat 5 >"$work/speed.json"
steps=$(awk -v step="$(field "$work/speed.json" median_seconds)" -v left=$((aim_seconds - 15 - (SECONDS - started))) \
    'BEGIN { steps = int(left / 2 / (1.1 * step) / 50) * 50
             print (steps < 200 ? 200 : (steps > 2000 ? 2000 : steps)) }')

# ---- Train ------------------------------------------------------------------------------------------

for mixer in parallax softmax; do
    say "training with $mixer attention on $text"
    "$parallax" train --data "${data[@]}" --mixer "$mixer" --intermediate-size "${ffn[$mixer]}" "${sizes[@]}" \
        --steps "$steps" --val-fraction 0.02 --eval-every $((steps / 2)) --checkpoint-every 0 --log-every 50 \
        --max-data-bytes 64000000 --seed 1 --out "$work/$mixer"
done

# ---- Compare ----------------------------------------------------------------------------------------

say "result after $steps steps: held-out text of $text"
printf '%-9s %11s %11s %14s %20s %10s %8s\n' model parameters 'first loss' 'held-out loss' 'held-out bits/byte' tokens/s seconds
for mixer in parallax softmax; do
    log=$work/$mixer/log.jsonl
    first=$(sed -n 's/.*"step":1,.*"loss":\([0-9.]*\).*/\1/p' "$log" | head -n 1)
    LC_ALL=C printf '%-9s %11d %11.4f %14.4f %20.4f %10.0f %8.0f\n' "$mixer" "$(field "$log" parameters)" "$first" \
        "$(field "$log" val_loss)" "$(field "$log" val_bits_per_byte)" "$(field "$log" tokens_per_second)" \
        "$(field "$log" seconds)"
done
echo
echo "The loss starts at 8 bits a byte, that of guessing. The softmax model has the parameters of W_R back as a"
echo "feed-forward width of ${ffn[softmax]} instead of ${ffn[parallax]}. One seed and a few minutes: an illustration, not a measurement."

say "a sample from the Parallax model"
"$parallax" sample "$work/parallax" $'#ifndef ' --max-tokens 240 --temperature 0.7 --seed 7 --echo --stats 2>"$work/stats"
printf '\n\n%s\n' "$(cat "$work/stats")"
say "done in $((SECONDS - started)) seconds"
