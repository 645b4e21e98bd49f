#!/usr/bin/env bash
# The demonstration behind `make demo`: builds, then trains two small byte-level language models of equal size
# side by side on real text, one with Parallax attention and one with softmax attention, both with Muon and
# WSD, and prints what they reached and what the Parallax model writes.
#
# usage: tools/demo.sh [FILE|FOLDER]...      default: the C headers under /usr/include
#
# A Parallax layer has one projection more than a softmax layer (W_R, as large as W_Q). The softmax model gets
# these parameters back as a wider feed-forward layer, so both models have the same number of parameters
# within 1 %.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS

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
    source_name="$*"
else
    data=("$work/headers")
    source_name="the C headers under /usr/include"
    mkdir "$work/headers"
    # Links, not copies; names made unique by their paths.
    find /usr/include -name '*.h' -type f -size -200k | LC_ALL=C sort | while read -r header; do
        ln -s "$header" "$work/headers/$(echo "${header#/usr/include/}" | tr / _)"
    done
fi

# ---- Train ------------------------------------------------------------------------------------------

# Sizes that two cores train in under two minutes each. Both models share these.
common=(--hidden-size 128 --layers 4 --heads 4 --kv-heads 2 --head-dim 32
    --batch 16 --context 256 --steps 600 --eval-every 150 --eval-tokens 100000
    --checkpoint-every 0 --log-every 100 --seed 1)
# W_R has hidden_size * heads * head_dim = 128 * 128 weights and a norm gain of 32 a layer; a feed-forward unit
# has 3 * 128. So 43 more units (rounded to 427) carry the same parameters.
declare -A ffn=([parallax]=384 [softmax]=427)

for mixer in parallax softmax; do
    say "training with $mixer attention on $source_name"
    "$parallax" train --data "${data[@]}" --mixer "$mixer" --intermediate-size "${ffn[$mixer]}" \
        "${common[@]}" --max-data-bytes 20000000 --out "$work/$mixer"
done

# ---- Compare ----------------------------------------------------------------------------------------

# field MODEL KEY: a number from the last line of a run's log.
field() { tail -n 1 "$work/$1/log.jsonl" | sed -n "s/.*\"$2\":\([-0-9.eE+]*\).*/\1/p"; }
# first_loss MODEL: the loss of the first step, in bits a byte.
first_loss() { sed -n 's/.*"step":1,.*"loss":\([0-9.]*\).*/\1/p' "$work/$1/log.jsonl" | head -n 1; }

say "result: held-out text of $source_name"
printf '%-10s %12s %16s %16s %16s %10s %9s\n' model parameters 'bits/byte at 0' 'held-out loss' \
    'held-out bits/byte' tokens/s seconds
for mixer in parallax softmax; do
    LC_ALL=C printf '%-10s %12d %16.3f %16.4f %18.4f %10.0f %9.0f\n' "$mixer" "$(field $mixer parameters)" \
        "$(awk -v loss="$(first_loss $mixer)" 'BEGIN { print loss / log(2) }')" \
        "$(field $mixer val_loss)" "$(field $mixer val_bits_per_byte)" "$(field $mixer tokens_per_second)" \
        "$(field $mixer seconds)"
done
echo
echo "The softmax model has the parameters of W_R back as a wider feed-forward layer (${ffn[softmax]} instead of" \
    "${ffn[parallax]}). One seed: a difference this small is an illustration, not a measurement."

say "a sample from the Parallax model"
"$parallax" sample "$work/parallax" $'#ifndef ' --max-tokens 200 --temperature 0.7 --seed 7 --echo --stats
echo
say "done in $((SECONDS - started)) seconds"
