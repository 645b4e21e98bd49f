#!/usr/bin/env bash
# curves.sh: the course of runs, side by side: a table of what was measured on held-out text, from RUN/log.jsonl.
#
# usage: tools/curves.sh [--plot FILE.svg] RUN...
#
# With --plot, and gnuplot, also a picture: held-out loss over steps, and the training loss behind it.
set -euo pipefail
plot=""
[ "${1:-}" = --plot ] && { plot=$2; shift 2; }
[ $# -gt 0 ] || { sed -n '2,/^set /s/^# \?//p' "$0" >&2; exit 2; }

# points RUN KEY: step and value of every step that has one.
points() { sed -n 's/.*"kind":"step","step":\([0-9]*\),.*"'"$2"'":\([-0-9.eE+]*\)[,}].*/\1 \2/p' "$1/log.jsonl"; }

printf '%-24s %8s %12s %12s %10s %10s %14s %12s\n' run step tokens 'train loss' 'val loss' bits/byte 'tokens/s' TFLOP/s
for run in "$@"; do
    # Of the steps up to each evaluation: the mean training loss and the middle speed.
    awk -v run="$(basename "$run")" '
        function value(key) { return match($0, "\"" key "\":[-0-9.eE+]*") ? substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) : "" }
        !/"kind":"step"/ { next }
        { loss += value("loss"); rate[++count] = value("tokens_per_second"); tflops += value("device_tflops") }
        value("val_loss") != "" {
            for (i = 2; i <= count; i++)
                for (j = i; j > 1 && rate[j - 1] > rate[j]; j--) { swap = rate[j]; rate[j] = rate[j - 1]; rate[j - 1] = swap }
            printf "%-24s %8d %12d %12.4f %10.4f %10.4f %14.0f %12.2f\n", run, value("step"), value("tokens"), loss / count,
                value("val_loss"), value("val_bits_per_byte"), rate[int((count + 1) / 2)], tflops / count
            loss = tflops = count = 0
        }' "$run/log.jsonl"
done

[ -n "$plot" ] || exit 0
command -v gnuplot >/dev/null || { echo "curves.sh: no gnuplot, so no $plot" >&2; exit 1; }
work=$(mktemp -d "${TMPDIR:-/tmp}/parallax-curves.XXXXXX")
trap 'rm -rf "$work"' EXIT
commands="set terminal svg size 900,520; set output '$plot'; set xlabel 'step'; set ylabel 'loss, nats a token'; plot"
index=0
for run in "$@"; do
    index=$((index + 1))
    points "$run" loss >"$work/$index.train"
    points "$run" val_loss >"$work/$index.val"
    commands+=" '$work/$index.train' with dots linecolor $index notitle,"
    commands+=" '$work/$index.val' with linespoints linecolor $index title '$(basename "$run"), held out',"
done
gnuplot -e "${commands%,}"
