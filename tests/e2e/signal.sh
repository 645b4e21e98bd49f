# SIGINT, SIGTERM and SIGUSR1 finish the step, write a checkpoint and end with exit code 0; the run then continues
# exactly.
source "$(dirname "$0")/common.sh"
make_text text 30
train=("$parallax" train --data text "${tiny[@]}" --steps 400 --checkpoint-every 0)
must "${train[@]}" --out whole
for signal in INT TERM USR1; do
    # Through a subshell that restores the default action: background jobs of scripts ignore SIGINT.
    "${train[@]}" --out cut >cut.out 2>&1 &
    pid=$!
    for _ in $(seq 200); do
        [ -s cut/log.jsonl ] && [ "$(wc -l <cut/log.jsonl)" -gt 5 ] && break
        sleep 0.02
    done
    kill "-$signal" "$pid"
    code=0
    wait "$pid" || code=$?
    [ "$code" -eq 0 ] || fail "exit code $code after SIG$signal: $(cat cut.out)"
    if ! grep -q 'stopped after step' cut.out; then
        grep -q 'trained to step 400' cut.out || fail "says nothing of stopping: $(cat cut.out)"
    fi
    must "${train[@]}" --out cut --resume auto
    same_model whole cut
    rm -r cut
done

# A scheduler's second SIGTERM does not cost the checkpoint; steps are long, so that it comes before the first is over.
"${train[@]}" --out long --accumulate 200 >long.out 2>&1 &
pid=$!
for _ in $(seq 200); do
    [ -s long/log.jsonl ] && [ "$(wc -l <long/log.jsonl)" -gt 1 ] && break
    sleep 0.05
done
kill -TERM "$pid"
sleep 0.1
kill -TERM "$pid" || true
wait "$pid" || fail "exit code $? after two SIGTERM: $(cat long.out)"
grep -q 'stopped after step' long.out || fail "says nothing of stopping: $(cat long.out)"
[ -n "$(final long)" ] || fail "no checkpoint after two SIGTERM"
