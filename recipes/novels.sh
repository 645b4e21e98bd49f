#!/usr/bin/env bash
# novels.sh: trains one of the two models of recipes/novels/ for a given time, scores it on novels it has not seen, and
# prints its course.
#
# usage: recipes/novels.sh parallax|softmax DATA OUT [SECONDS [STEPS]] [-- TRAIN_OPTION...]
#
#   DATA      folder with novels.train.txt and novels.val.txt, or the same as .txt.xz
#   OUT       folder for the run; also for the unpacked texts
#   SECONDS   of training, 480 where it is not given
#   STEPS     where it is not given, or 0: as many as SECONDS have room for, found by timing 30 steps.
#             To compare the two models, give the second what the first one took.
#
# PARALLAX (build/parallax) and DEVICE (cuda) are taken from the environment.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,/^set /s/^# \?//p' "$0" >&2; exit 2; }
mixer=$1 data=$2 out=$3
shift 3
seconds=480 steps=0
[ $# -gt 0 ] && [ "$1" != -- ] && { seconds=$1; shift; }
[ $# -gt 0 ] && [ "$1" != -- ] && { steps=$1; shift; }
[ $# -gt 0 ] && shift
here=$(dirname "$0")
parallax=${PARALLAX:-build/parallax}
device=(--device "${DEVICE:-cuda}")

# ---- Texts: unpacked by xz, or by Python where a machine has no xz ----------------------------------

mkdir -p "$out"
unpack() {
    if command -v xz >/dev/null; then
        xz -dc "$1"
    else
        python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)' "$1"
    fi
}
text=()
for part in train val; do
    file=$data/novels.$part.txt
    if [ ! -f "$file" ]; then
        file=$out/novels.$part.txt
        [ -f "$file" ] || unpack "$data/novels.$part.txt.xz" >"$file"
    fi
    text+=("$file")
done

# ---- As many steps as the time has room for ---------------------------------------------------------

train=("$parallax" train --config "$here/novels/$mixer.json" "${device[@]}" --data "${text[0]}" "$@")
if [ "$steps" -eq 0 ]; then
    rm -rf "$out/timing"
    "${train[@]}" --steps 30 --val-fraction 0 --log-every 1 --out "$out/timing" >/dev/null
    # The middle one of the last 15 steps; a twentieth of the time is for evaluations and checkpoints.
    steps=$(sed -n 's/.*"kind":"step".*"seconds":\([0-9.e-]*\),.*/\1/p' "$out/timing/log.jsonl" | tail -n 15 |
        LC_ALL=C sort -g | awk -v seconds="$seconds" 'NR == 8 { steps = int(0.95 * seconds / $1 / 10) * 10 }
            END { print (steps < 10 ? 10 : steps) }')
    rm -rf "$out/timing"
fi

# ---- Train, score, show -----------------------------------------------------------------------------

echo "== $mixer: $steps steps, at most $seconds seconds"
"${train[@]}" --val-data "${text[1]}" --steps "$steps" --max-seconds "$seconds" --out "$out/$mixer"
echo "== $mixer: all of the held-out text"
"$parallax" eval "$out/$mixer" "${device[@]}" --data "${text[1]}" --batch 32
echo "== $mixer: its course"
"$here/../tools/curves.sh" "$out/$mixer"
