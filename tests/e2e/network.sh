# Two hosts whose network fails in the middle of a run: each rank ends within bounded time with one sentence, and the
# run goes on from its last checkpoint. The hosts are two network namespaces of this one, which takes root to make.
source "$(dirname "$0")/common.sh"
host=plx$$
if ! ip netns add "${host}a" 2>/dev/null; then
    echo "skipped: no network namespace can be made here"
    exit 77
fi
trap 'ip netns del "${host}a"; ip netns del "${host}b"; rm -rf "$work"' EXIT
ip netns add "${host}b"
ip -n "${host}a" link add eth0 type veth peer name eth0 netns "${host}b"
for end in a:1 b:2; do
    ip -n "$host${end%:*}" addr add "10.88.0.${end#*:}/24" dev eth0
    ip -n "$host${end%:*}" link set eth0 up
done
make_text text 30
train=("$parallax" train --data text "${tiny[@]}" --device cpu --checkpoint-every 100 --keep 2)

# on HOST RANK OPTION...: one of two ranks.
on() {
    local host_end=$1 rank=$2
    shift 2
    exec ip netns exec "$host$host_end" env RANK="$rank" WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=10.88.0.1 \
        MASTER_PORT=29500 "${train[@]}" --steps 1000000 "$@"
}

# lines: of the log; settled: it does not grow.
lines() { wc -l <"$run/log.jsonl"; }
settled() {
    local before
    before=$(lines)
    sleep 1
    [ "$(lines)" -eq "$before" ]
}

# Once while both speak with each other, and once while rank 0 waits for a reader of what it prints.
mkfifo unread
exec 9<>unread
for run in speaking stuck; do
    ip -n "${host}b" link set eth0 up
    out=rank0.out
    [ "$run" = speaking ] || out=unread
    on a 0 --out "$run" --log-every 1 >"$out" 2>rank0.err &
    first=$!
    on b 1 --out "$run" --log-every 1 >rank1.out 2>rank1.err &
    second=$!
    for _ in $(seq 1000); do
        [ -n "$(final "$run" 2>/dev/null)" ] && break
        sleep 0.02
    done
    [ "$run" = speaking ] || until settled; do :; done
    ip -n "${host}b" link set eth0 down
    begin=$SECONDS
    for pid in "$first" "$second"; do
        code=0
        wait "$pid" || code=$?
        [ "$code" -eq 1 ] || fail "$run: exit code $code: $(cat rank0.err rank1.err)"
    done
    echo "$run: the ranks ended after $((SECONDS - begin)) seconds"
    [ $((SECONDS - begin)) -lt 80 ] || fail "$run: that is too long"
    [ "$(wc -l <rank0.err)" -eq 1 ] || fail "$run: not one line: $(cat rank0.err)"
    lost='rank 1 is lost to rank 0: its machine has not answered for 60 seconds'
    grep -q "^parallax: rank 0: $lost; the last good checkpoint is $(final "$run")\$" rank0.err ||
        fail "$run: says: $(cat rank0.err)"
    grep -q '^parallax: rank 1: rank 0 is lost to rank 1: its machine has not answered for 60 seconds$' rank1.err ||
        fail "$run: says: $(cat rank1.err)"
    must "${train[@]}" --out "$run" --resume auto --steps 1
done
