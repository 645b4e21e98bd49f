# Sourced by the tests of several GPUs: what e2e/common.sh gives, the GPUs that may be used, and ranks that no launcher of
# ours starts or ends.
source "$(dirname "${BASH_SOURCE[0]}")/../e2e/common.sh"
gpus=$(find /dev -maxdepth 1 -name 'nvidia[0-9]*' 2>/dev/null | wc -l)
mapfile -t devices < <(seq 0 $((gpus - 1)))
[ "$gpus" -eq 0 ] || [ -z "${CUDA_VISIBLE_DEVICES:-}" ] || IFS=, read -ra devices <<<"$CUDA_VISIBLE_DEVICES"
gpus=${#devices[@]}
[ "$gpus" -ge 2 ] || { echo "skipped: $gpus GPUs, and two are needed"; exit 77; }
port=$((20000 + $$ % 10000))
trap 'kill -9 $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT

# Steps that take long and are read one by one: a rank waits for its GPU, and that for the other ranks.
large=(--hidden-size 512 --intermediate-size 2048 --layers 8 --heads 8 --kv-heads 4 --head-dim 64 --context 512
    --batch 8 --accumulate 4 --log-every 1)

# begin RUN HOSTS EACH COMMAND...: starts EACH ranks of the run on every host, as a cluster's launcher does; "ranks" are
# their processes. Several hosts are made of this one: each sees GPUs of its own, and NCCL, which is told that they are
# different machines, has nothing but sockets between them, and writes to RUN.ncclRANK what it does.
begin() {
    local run=$1 hosts=$2 each=$3 rank host environment
    shift 3
    ranks=()
    for rank in $(seq 0 $((hosts * each - 1))); do
        host=$((rank / each))
        environment=(RANK="$rank" WORLD_SIZE=$((hosts * each)) LOCAL_RANK=$((rank % each)) MASTER_ADDR=127.0.0.1
            MASTER_PORT="$port" CUDA_VISIBLE_DEVICES="$(IFS=, && echo "${devices[*]:host * each:each}")")
        [ "$hosts" -eq 1 ] || environment+=(NCCL_HOSTID="host$host" NCCL_NET=Socket NCCL_SOCKET_IFNAME=lo
            NCCL_MNNVL_ENABLE=0 NCCL_DEBUG=INFO NCCL_DEBUG_FILE="$work/$run.nccl$rank")
        env "${environment[@]}" "$@" --out "$run" >"$run.out$rank" 2>"$run.err$rank" &
        ranks[rank]=$!
    done
}

# start RUN HOSTS EACH OPTION...: begins a run without end, and waits until it has written a checkpoint.
start() {
    local run=$1 pid
    begin "${@:1:3}" "$parallax" train --data text "${tiny[@]}" --device cuda --steps 1000000 --checkpoint-every 40 \
        --keep 2 "${@:4}"
    for _ in $(seq 3000); do
        [ -s "$run/log.jsonl" ] && [ "$(wc -l <"$run/log.jsonl")" -gt 45 ] && return
        for pid in "${ranks[@]}"; do kill -0 "$pid" 2>/dev/null || break 2; done
        sleep 0.02
    done
    fail "$run does not start: $(cat "$run".err?)"
}

# ends RANK RUN PATTERN: within 30 seconds this rank fails with one sentence, which matches.
ends() {
    local rank=$1 run=$2 pattern=$3 code=0
    for _ in $(seq 300); do
        kill -0 "${ranks[rank]}" 2>/dev/null || break
        sleep 0.1
    done
    echo "$run: $((($(date +%s%N) - lost_at) / 1000000)) ms later rank $rank says: $(cat "$run.err$rank")"
    ! kill -0 "${ranks[rank]}" 2>/dev/null || fail "$run: rank $rank was still there"
    wait "${ranks[rank]}" || code=$?
    [ "$code" -eq 1 ] || fail "$run: exit code $code"
    [ "$(wc -l <"$run.err$rank")" -eq 1 ] || fail "$run: not one line"
    grep -Eq "^parallax: rank $rank: $pattern\$" "$run.err$rank" || fail "$run: another sentence is expected: $pattern"
}

# lose RUN VICTIM [CAUSE]: kills one rank. The others end by themselves, rank 0 because of that one, the rest because of
# rank 0, to which alone they speak, or because of CAUSE, too. Rank 0 names the last checkpoint, and that is sound.
lose() {
    local run=$1 victim=$2 rank because
    echo "$run: rank $victim is killed after $(losses "$run" | wc -l) logged steps"
    lost_at=$(date +%s%N)
    disown "${ranks[victim]}"
    kill -9 "${ranks[victim]}"
    for rank in "${!ranks[@]}"; do
        [ "$rank" -ne "$victim" ] || continue
        because="(rank $((rank == 0 ? victim : 0)) has ended before rank $rank was done with it${3:+|$3}): [^;]*"
        [ "$rank" -ne 0 ] || because+="; the last good checkpoint is $run/checkpoints/step-[0-9]{8}"
        ends "$rank" "$run" "$because"
    done
    must "$parallax" train --out "$run" --resume auto --steps 1
}
