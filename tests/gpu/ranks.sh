# Two GPUs in one run against one, and four where there are as many: what tests/e2e/ranks.sh shows on the CPU, over NCCL.
# usage: ranks.sh PROGRAM
source "$(dirname "$0")/common.sh"
make_text text 30
train=("$parallax" train --data text "${tiny[@]}" --device cuda --deterministic --steps 20 --checkpoint-every 10)
counts=(2)
[ "$gpus" -lt 4 ] || counts+=(4)
declare -A tolerance=([f32]=1e-5 [bf16]=1e-2 [fp8]=1e-2)
if ! "${train[@]}" --dtype fp8 --out fp8 --steps 1 >fp8.out 2>&1; then
    grep -q 'these take a Hopper GPU and cuBLASLt' fp8.out || fail "no fp8: $(cat fp8.out)"
    echo "without fp8, which this GPU or its cuBLASLt does not have"
    unset 'tolerance[fp8]'
fi

# Several GPUs read what one with as many times the batch reads, and learn the same.
for optimizer in muon adamw; do
    for dtype in "${!tolerance[@]}"; do
        run=$optimizer-$dtype
        must "${train[@]}" --optimizer "$optimizer" --out "1-$run" --dtype "$dtype" --batch 4
        for count in "${counts[@]}"; do
            must "${train[@]}" --optimizer "$optimizer" --out "$count-$run" --dtype "$dtype" --batch $((4 / count)) \
                --gpus "$count"
            same_losses "1-$run" "$count-$run" "${tolerance[$dtype]}"
        done
    done
done

# Where every row is the same text, halves of gradients add up exactly, and quarters. AdamW, because Muon's products of a
# batch of matrices may be computed in another order when the batch is another.
make_rows rows.txt
rows=("$parallax" train --data rows.txt "${tiny[@]}" --device cuda --deterministic --steps 12 --val-fraction 0
    --no-shuffle --optimizer adamw)
for dtype in "${!tolerance[@]}"; do
    must "${rows[@]}" --dtype "$dtype" --out "rows1-$dtype"
    for count in "${counts[@]}"; do
        must "${rows[@]}" --dtype "$dtype" --out "rows$count-$dtype" --gpus "$count"
        same_losses "rows1-$dtype" "rows$count-$dtype" 0
        same_state "rows1-$dtype" "rows$count-$dtype"
    done
done

# Steps as graphs are those launched one by one, with exchanges in them, documents of many lengths, ends of epochs, which
# leave one rank's rows shorter, and samples that rank 0 alone draws.
seq 150 | awk '{ s = "{\"text\": \"" $1; for (w = 0; w < $1 * 7 % 23; w++) s = s " word" w; print s "\"}" }' >documents.jsonl
for count in "${counts[@]}"; do
    for optimizer in muon adamw; do
        run=$count-$optimizer
        for graphs in "" no-; do
            must "$parallax" train --data documents.jsonl "${tiny[@]}" --device cuda --deterministic --steps 30 \
                --accumulate 2 --optimizer "$optimizer" --sample-every 7 --sample-tokens 8 --sample-prompt 1 \
                --gpus "$count" "--${graphs}cuda-graphs" --out "${graphs}graphs$run"
        done
        same_losses "graphs$run" "no-graphs$run" 0
        same_model "graphs$run" "no-graphs$run"
    done
done

# Half the way with some GPUs, the rest with one or others, and with as many again.
for from in "${counts[@]}"; do
    for count in 1 "${counts[@]}"; do
        cp -r "$from-muon-f32" "$from-on-$count"
        rm -r "$from-on-$count/checkpoints/step-00000020"
        must "${train[@]}" --dtype f32 --out "$from-on-$count" --resume auto --batch $((4 / count)) --gpus "$count"
        same_losses 1-muon-f32 "$from-on-$count" 1e-5
    done
    same_model "$from-muon-f32" "$from-on-$from"
done

# A rank that dies while the other waits for it on the GPU.
"$parallax" train --data text "${tiny[@]}" --device cuda --steps 1000000 --checkpoint-every 10 --keep 2 --gpus 2 \
    --out dead >run.out 2>run.err &
starter=$!
for _ in $(seq 1500); do
    [ -s dead/log.jsonl ] && [ "$(wc -l <dead/log.jsonl)" -gt 15 ] && break
    sleep 0.02
done
mapfile -t ranks < <(children "$starter")
kill -9 "${ranks[1]}"
code=0
wait "$starter" || code=$?
[ "$code" -eq 1 ] || fail "exit code $code after rank 1 died: $(cat run.err)"
grep -q '^parallax: rank 1 was killed by signal 9 (Killed); the last good checkpoint is dead/checkpoints/step-' run.err ||
    fail "says: $(cat run.err)"
sleep 0.5
for pid in "${ranks[@]}"; do ! kill -0 "$pid" 2>/dev/null || fail "rank $pid is still there"; done
refuses 2 'rank [0-9]*: device: GPU [0-9]* does not exist' "${train[@]}" --out many --gpus $((gpus + 1))
