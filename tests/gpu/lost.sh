# A rank on a GPU whose other one dies, where no launcher ends it: it ends by itself, names its loss and its last
# checkpoint, and that one is sound. usage: lost.sh PROGRAM
source "$(dirname "$0")/../e2e/common.sh"
gpus=$(find /dev -maxdepth 1 -name 'nvidia[0-9]*' 2>/dev/null | wc -l)
[ "$gpus" -ge 2 ] || { echo "skipped: $gpus GPUs, and two are needed"; exit 77; }
make_text text 2000
train=("$parallax" train --data text "${tiny[@]}" --device cuda --steps 1000000 --checkpoint-every 40 --keep 2)
port=$((20000 + $$ % 10000))

# start RUN OPTION...: two ranks by hand; waits until they have written a checkpoint.
start() {
    local run=$1 rank
    shift
    for rank in 0 1; do
        RANK=$rank WORLD_SIZE=2 LOCAL_RANK=$rank MASTER_ADDR=127.0.0.1 MASTER_PORT=$port \
            "${train[@]}" --out "$run" "$@" >"$run.out$rank" 2>"$run.err$rank" &
        ranks[rank]=$!
    done
    for _ in $(seq 3000); do
        [ -s "$run/log.jsonl" ] && [ "$(wc -l <"$run/log.jsonl")" -gt 45 ] && return
        { kill -0 "${ranks[0]}" && kill -0 "${ranks[1]}"; } 2>/dev/null || break
        sleep 0.02
    done
    fail "$run does not start: $(cat "$run".err?)"
}

# lose RUN VICTIM SENTENCE: kills one rank; the other must end within 30 seconds with this sentence.
lose() {
    local run=$1 victim=$2 sentence=$3 survivor=$((1 - $2)) code=0 begin
    begin=$(date +%s%N)
    disown "${ranks[victim]}"
    kill -9 "${ranks[victim]}"
    for _ in $(seq 300); do
        kill -0 "${ranks[survivor]}" 2>/dev/null || break
        sleep 0.1
    done
    echo "$run: rank $victim was killed after $(losses "$run" | wc -l) logged steps;" \
        "$((($(date +%s%N) - begin) / 1000000)) ms later rank $survivor says: $(cat "$run.err$survivor")"
    if kill -0 "${ranks[survivor]}" 2>/dev/null; then
        kill -9 "${ranks[survivor]}"
        fail "$run: rank $survivor was still there"
    fi
    wait "${ranks[survivor]}" || code=$?
    [ "$code" -eq 1 ] || fail "$run: exit code $code"
    [ "$(wc -l <"$run.err$survivor")" -eq 1 ] || fail "$run: not one line"
    grep -Eq "^parallax: rank $survivor: rank $victim has ended before rank $survivor was done with it: $sentence\$" \
        "$run.err$survivor" || fail "$run: another sentence is expected"
    must "$parallax" train --out "$run" --resume auto --steps 1
}

# Steps that take long and are read one by one: the rank waits for its GPU, and that for the other rank.
large=(--hidden-size 512 --intermediate-size 2048 --layers 8 --heads 8 --kv-heads 4 --head-dim 64 --context 512
    --batch 8 --accumulate 4 --log-every 1)
for graphs in "" no-; do
    start "${graphs}graphs" "${large[@]}" "--${graphs}cuda-graphs"
    lose "${graphs}graphs" 1 ".*; the last good checkpoint is ${graphs}graphs/checkpoints/step-[0-9]{8}"
done
start other "${large[@]}"
lose other 0 '[^;]*'
# Short steps that are seldom read: the rank is mostly with the hub, which tells it at once.
start hub --log-every 20
lose hub 1 '.*; the last good checkpoint is hub/checkpoints/step-[0-9]{8}'
