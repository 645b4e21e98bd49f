# kill -9 at random moments of a run that checkpoints every other step: resume always succeeds, and the run ends with
# the bytes of one that was never interrupted. usage: kill.sh PROGRAM KILLS [SEED]
source "$(dirname "$0")/common.sh"
kills=$2
seed=${3:-$(date +%s)}
echo "seed $seed"
RANDOM=$((seed % 32768))
make_text text 30
train=("$parallax" train --data text "${tiny[@]}" --steps 60 --checkpoint-every 2 --keep 2)
started=$(date +%s%N)
must "${train[@]}" --out whole
duration=$((($(date +%s%N) - started) / 1000000)) # milliseconds

# complete: the run has ended by itself; it must be the whole run's equal.
complete() {
    same_model whole run
    cmp <(losses whole) <(losses run) || fail "the losses of the log differ"
    rm -r run
}

done_kills=0
finished=0
while [ "$done_kills" -lt "$kills" ]; do
    "${train[@]}" --out run --resume auto >run.out 2>&1 &
    pid=$!
    sleep "$(awk -v ms=$((RANDOM % (duration / 2 + 1))) 'BEGIN { print ms / 1000 }')"
    if kill -9 "$pid" 2>/dev/null; then done_kills=$((done_kills + 1)); fi
    code=0
    wait "$pid" 2>/dev/null || code=$?
    if [ "$code" -eq 0 ]; then
        complete
        finished=$((finished + 1))
    elif [ "$code" -ne 137 ]; then
        fail "exit code $code: $(cat run.out)"
    fi
done
must "${train[@]}" --out run --resume auto
complete
echo "$done_kills kills, $((finished + 1)) complete runs"
