#!/usr/bin/env bash
# The retrofit from softmax attention to Parallax, from fresh weights to curves: trains a small softmax model on text,
# gives it a probe in three ways, and trains each of these and the softmax model itself on for the same tokens.
# usage: retrofit.sh PROGRAM TRAIN.txt VAL.txt OUT [OPTION of parallax train...]
# OUT/curves.tsv then holds the held-out loss of every run, in nats a byte, by the steps after the base. A run that is
# there already is kept, so that an interrupted demonstration goes on where it was.
set -euo pipefail
[ $# -ge 4 ] || { sed -n '4s/^# //p' "$0" >&2; exit 2; }
parallax=$(realpath "$1")
train=$(realpath "$2")
val=$(realpath "$3")
recipes=$(realpath "$(dirname "$0")")/retrofit
mkdir -p "$4"
cd "$4"
options=("${@:5}")
runs=(softmax zero-gain zero-weight copy-q probe lora)

run() {
    "$parallax" train --config "$recipes/$1.json" --data "$train" --val-data "$val" --resume auto "${options[@]}"
}

# losses RUN KEY: step and the value of KEY of every step that has one.
losses() { sed -n 's/.*"kind":"step","step":\([0-9]*\),.*"'"$2"'":\([0-9.eE+-]*\)[,}].*/\1\t\2/p' "$1/log.jsonl"; }

run base
for start in zero-gain zero-weight copy-q; do
    [ -e "start-$start" ] || "$parallax" convert base "start-$start" --attention parallax --probe "$start"
done
for name in "${runs[@]}"; do run "$name"; done

{
    printf 'step'
    printf '\t%s' "${runs[@]}"
    printf '\n'
    for name in "${runs[@]}"; do losses "$name" val_loss | sed "s/^/$name\t/"; done |
        awk -F '\t' -v names="${runs[*]}" '
            !seen[$2]++ { steps[++count] = $2 }
            { value[$2, $1] = $3 }
            END {
                runs = split(names, run, " ")
                for (i = 1; i <= count; i++) {
                    line = steps[i]
                    for (r = 1; r <= runs; r++) line = line sprintf("\t%.4f", value[steps[i], run[r]])
                    print line
                }
            }'
} >curves.tsv
echo
echo "the base: $(losses base val_loss | tail -n 1 | cut -f 2) nats a byte on held-out text; the loss of each run's first step:"
for name in "${runs[@]}"; do echo "  $name $(losses "$name" loss | head -n 1 | cut -f 2)"; done
cat curves.tsv
