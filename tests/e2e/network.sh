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
train=("$parallax" train --data text "${tiny[@]}" --device cpu --checkpoint-every 10 --keep 2 --out run)

# on HOST RANK: one of two ranks.
on() {
    exec ip netns exec "$host$1" env RANK="$2" WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=10.88.0.1 MASTER_PORT=29500 \
        "${train[@]}" --steps 1000000
}
on a 0 >rank0.out 2>rank0.err &
first=$!
on b 1 >rank1.out 2>rank1.err &
second=$!
for _ in $(seq 500); do
    [ -s run/log.jsonl ] && [ "$(wc -l <run/log.jsonl)" -gt 25 ] && break
    sleep 0.02
done
ip -n "${host}b" link set eth0 down
begin=$SECONDS
for pid in "$first" "$second"; do
    code=0
    wait "$pid" || code=$?
    [ "$code" -eq 1 ] || fail "exit code $code: $(cat rank0.err rank1.err)"
done
[ $((SECONDS - begin)) -lt 80 ] || fail "the ranks ended after $((SECONDS - begin)) seconds"
[ "$(wc -l <rank0.err)" -eq 1 ] || fail "not one line: $(cat rank0.err)"
grep -q '^parallax: rank 0: rank 1 is lost to rank 0: its machine has not answered for 60 seconds; the last good checkpoint is run/' \
    rank0.err || fail "says: $(cat rank0.err)"
grep -q '^parallax: rank 1: rank 0 is lost to rank 1: its machine has not answered for 60 seconds$' rank1.err ||
    fail "says: $(cat rank1.err)"
must "${train[@]}" --resume auto --steps 1
