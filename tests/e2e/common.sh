# Sourced by every end-to-end test: strict mode, a scratch folder, a small text, and checks that say what they saw.
set -euo pipefail
parallax=$(realpath "$1")
work=$(mktemp -d "${TMPDIR:-/tmp}/parallax-e2e.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# make_text FOLDER FILES: files of short sentences from a small vocabulary, the same on every machine.
make_text() {
    mkdir -p "$1"
    awk -v folder="$1" -v files="$2" 'BEGIN {
        count = split("the a one every quick slow brown red fox dog cat bird sees likes finds keeps and", word, " ")
        state = 12345
        for (file = 0; file < files; file++) {
            name = sprintf("%s/text%03d.txt", folder, file)
            for (sentence = 0; sentence < 12; sentence++) {
                line = ""
                for (w = 0; w < 9; w++) {
                    state = (state * 1103515245 + 12345) % 2147483648
                    line = line word[1 + int(state / 65536) % count] (w < 8 ? " " : ".")
                }
                print line > name
            }
            close(name)
        }
    }'
}

# make_rows FILE: a text whose rows of 32 bytes are all the same.
make_rows() { for _ in $(seq 400); do printf 'abcdefghijklmnopqrstuvwxyz 1234.'; done >"$1"; }

# A model that trains a step in a few milliseconds; one thread, so that busy machines do not matter.
tiny=(--hidden-size 32 --intermediate-size 64 --layers 2 --heads 2 --kv-heads 1 --head-dim 16
    --context 32 --batch 4 --threads 1 --eval-every 10)

# must COMMAND...: runs it quietly; on failure shows what it said.
must() {
    "$@" >"$work/must.out" 2>&1 || {
        local code=$?
        tail -n 20 "$work/must.out" >&2
        fail "exit code $code from: $*"
    }
}

# refuses CODE PATTERN COMMAND...: the command ends with CODE and one sentence on stderr that matches PATTERN.
refuses() {
    local code=$1 pattern=$2 got=0
    shift 2
    "$@" >"$work/refuses.out" 2>"$work/refuses.err" </dev/null || got=$?
    [ "$got" -eq "$code" ] || fail "exit code $got, not $code, from: $* ($(cat "$work/refuses.err"))"
    [ "$(wc -l <"$work/refuses.err")" -eq 1 ] || fail "not one line on stderr from: $* ($(cat "$work/refuses.err"))"
    grep -q '^parallax: ' "$work/refuses.err" || fail "no \"parallax: \" before: $(cat "$work/refuses.err")"
    grep -Eq -- "$pattern" "$work/refuses.err" || fail "\"$pattern\" is not in: $(cat "$work/refuses.err")"
}

# losses RUN: step and loss of every step in a run's log, one a line.
losses() { sed -n 's/.*"kind":"step","step":\([0-9]*\),.*"loss":\([0-9.eE+-]*\),.*/\1 \2/p' "$1/log.jsonl"; }

# same_losses RUN RUN TOLERANCE: as many steps, and every loss within TOLERANCE (relative).
same_losses() {
    losses "$1" >"$work/losses.1"
    losses "$2" >"$work/losses.2"
    [ -s "$work/losses.1" ] || fail "no losses in $1"
    paste -d ' ' "$work/losses.1" "$work/losses.2" | awk -v tolerance="$3" '
        NF != 4 || $1 != $3 { print "steps differ: " $0; bad = 1; exit }
        { error = ($2 - $4) / $2; if (error < 0) error = -error
          if (!(error <= tolerance)) { print "step " $1 ": " $2 " and " $4; bad = 1; exit } }
        END { exit bad }' || fail "losses of $1 and $2 differ by more than $3"
}

# final RUN: the newest checkpoint folder of a run.
final() { find "$1/checkpoints" -maxdepth 1 -name 'step-*' ! -name '*.partial' | LC_ALL=C sort | tail -n 1; }

# same_model RUN RUN: their newest checkpoints hold the same weights, byte for byte.
same_model() {
    cmp "$(final "$1")/model.safetensors" "$(final "$2")/model.safetensors" ||
        fail "the weights of $1 and $2 differ"
}

# same_state RUN RUN: and the same states of the optimiser.
same_state() {
    same_model "$1" "$2"
    cmp "$(final "$1")/optimizer.safetensors" "$(final "$2")/optimizer.safetensors" ||
        fail "the optimiser states of $1 and $2 differ"
}

# children PID: the processes that it started and that have not ended, oldest first, one a line.
children() { tr -s ' ' '\n' <"/proc/$1/task/$1/children" | grep .; }
