# Two GPUs in one run against one: what tests/e2e/ranks.sh shows on the CPU, over NCCL. usage: ranks.sh PROGRAM
source "$(dirname "$0")/../e2e/common.sh"
gpus=$(find /dev -maxdepth 1 -name 'nvidia[0-9]*' 2>/dev/null | wc -l)
[ "$gpus" -ge 2 ] || { echo "skipped: $gpus GPUs, and two are needed"; exit 77; }
make_text text 30
train=("$parallax" train --data text "${tiny[@]}" --device cuda --deterministic --steps 20 --checkpoint-every 10)

# Two GPUs read what one with twice the batch reads, and learn the same.
for optimizer in muon adamw; do
    must "${train[@]}" --optimizer "$optimizer" --out "one-$optimizer" --dtype f32 --batch 4
    must "${train[@]}" --optimizer "$optimizer" --out "two-$optimizer" --dtype f32 --batch 2 --gpus 2
    same_losses "one-$optimizer" "two-$optimizer" 1e-5
    must "${train[@]}" --optimizer "$optimizer" --out "one16-$optimizer" --dtype bf16 --batch 4
    must "${train[@]}" --optimizer "$optimizer" --out "two16-$optimizer" --dtype bf16 --batch 2 --gpus 2
    same_losses "one16-$optimizer" "two16-$optimizer" 1e-2
done

# Where every row is the same text, halves of gradients add up exactly. AdamW, because Muon's products of a batch of
# matrices may be computed in another order when the batch is another.
for _ in $(seq 400); do printf 'abcdefghijklmnopqrstuvwxyz 1234.'; done >rows.txt
rows=("$parallax" train --data rows.txt "${tiny[@]}" --device cuda --deterministic --steps 12 --val-fraction 0
    --no-shuffle --optimizer adamw)
for dtype in f32 bf16; do
    must "${rows[@]}" --dtype "$dtype" --out "rows1-$dtype"
    must "${rows[@]}" --dtype "$dtype" --out "rows2-$dtype" --gpus 2
    same_losses "rows1-$dtype" "rows2-$dtype" 0
    same_model "rows1-$dtype" "rows2-$dtype"
    cmp "$(final "rows1-$dtype")/optimizer.safetensors" "$(final "rows2-$dtype")/optimizer.safetensors" ||
        fail "optimiser states differ in $dtype"
done

# Steps as graphs are those launched one by one, with exchanges in them, documents of many lengths, ends of epochs, which
# leave one rank's rows shorter, and samples that rank 0 alone draws.
seq 150 | awk '{ s = "{\"text\": \"" $1; for (w = 0; w < $1 * 7 % 23; w++) s = s " word" w; print s "\"}" }' >documents.jsonl
for optimizer in muon adamw; do
    for graphs in "" no-; do
        must "$parallax" train --data documents.jsonl "${tiny[@]}" --device cuda --deterministic --steps 30 --accumulate 2 \
            --optimizer "$optimizer" --sample-every 7 --sample-tokens 8 --sample-prompt 1 --gpus 2 \
            "--${graphs}cuda-graphs" --out "${graphs}graphs-$optimizer"
    done
    same_losses "graphs-$optimizer" "no-graphs-$optimizer" 0
    same_model "graphs-$optimizer" "no-graphs-$optimizer"
done

# Half the way with two GPUs, the rest with one, and with two again.
for count in 1 2; do
    cp -r two-muon "on$count"
    rm -r "on$count/checkpoints/step-00000020"
    must "${train[@]}" --dtype f32 --out "on$count" --resume auto --batch $((4 / count)) --gpus "$count"
    same_losses one-muon "on$count" 1e-5
done
same_model two-muon on2

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
