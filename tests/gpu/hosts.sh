# Two hosts with half of the GPUs each (at most two), made of this one, against the same number of GPUs of one host.
# usage: hosts.sh PROGRAM
source "$(dirname "$0")/common.sh"
make_text text 2000
each=$((gpus < 4 ? 1 : 2))
size=$((2 * each))

# on_hosts RUN COMMAND...: runs it to its end, every rank on a GPU of its own and with sockets between the hosts.
on_hosts() {
    local run=$1 rank
    begin "$run" 2 "$each" "${@:2}"
    for rank in "${!ranks[@]}"; do
        wait "${ranks[rank]}" || fail "$run: rank $rank ends with $?: $(cat "$run".err?)"
        [ "$rank" -eq 0 ] || [ -z "$(cat "$run.out$rank" "$run.err$rank")" ] || fail "$run: rank $rank is not silent"
    done
    cat "$run".nccl? >nccl
    [ "$(grep -o 'busId [0-9a-f]* commId' nccl | sort -u | wc -l)" -eq "$size" ] || fail "$run: not $size GPUs: $(grep busId nccl)"
    grep -q 'nNodes 2 ' nccl || fail "$run: NCCL sees no two hosts: $(grep nNodes nccl)"
    grep -q ' via NET/Socket/' nccl || fail "$run: NCCL uses no sockets: $(grep ' via ' nccl)"
    echo "$run: $size GPUs of 2 hosts, $(grep -c ' via NET/Socket/' nccl) ends of connections over sockets," \
        "$(grep -c ' via P2P/' nccl) within a host"
}

train=("$parallax" train --data text "${tiny[@]}" --device cuda --deterministic --steps 20 --checkpoint-every 10
    --dtype f32 --batch $((4 / size)))
for optimizer in muon adamw; do
    must "${train[@]}" --optimizer "$optimizer" --out "one-$optimizer" --gpus "$size"
    for graphs in no- ""; do
        on_hosts "${graphs}graphs-$optimizer" "${train[@]}" --optimizer "$optimizer" "--${graphs}cuda-graphs"
        same_losses "one-$optimizer" "${graphs}graphs-$optimizer" 1e-5
    done
    same_model "no-graphs-$optimizer" "graphs-$optimizer"
done

# Where every row is the same text, equal shares of gradients add up exactly: the bytes of one GPU.
make_rows rows.txt
rows=("$parallax" train --data rows.txt "${tiny[@]}" --device cuda --deterministic --steps 12 --val-fraction 0
    --no-shuffle --optimizer adamw)
must "${rows[@]}" --out one-rows
on_hosts two-rows "${rows[@]}"
same_losses one-rows two-rows 0
same_state one-rows two-rows

# The other host's last rank dies. NCCL may notice that on its sockets before anyone asks.
start lost 2 "$each" "${large[@]}"
lose lost $((size - 1)) "rank [0-9] has ended before rank [0-9] was done with it|nccl: nccl[A-Za-z]*"
