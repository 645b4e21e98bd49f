# A damaged newest checkpoint is reported and the one before it is used; with all damaged, nothing starts from zero.
source "$(dirname "$0")/common.sh"
make_text text 30
train=("$parallax" train --data text --out run "${tiny[@]}" --steps 30 --checkpoint-every 10 --keep 0)
must "${train[@]}"
cp -r run whole

# One flipped byte in the weights.
weights=run/checkpoints/step-00000030/model.safetensors
size=$(stat -c %s "$weights")
printf 'X' | dd of="$weights" bs=1 seek=$((size - 5)) conv=notrunc status=none
must "${train[@]}" --resume auto
grep -q 'step-00000030' must.out || fail "the damaged checkpoint is not named: $(cat must.out)"
grep -q 'resuming after step 20' must.out || fail "did not go back to step 20: $(cat must.out)"
same_model run whole

# A missing file, a truncated one, a manifest that is not JSON, a folder that was never completed.
rm run/checkpoints/step-00000030/optimizer.safetensors
truncate -s 100 run/checkpoints/step-00000020/model.safetensors
mkdir run/checkpoints/step-00000040.partial
must "${train[@]}" --resume auto
grep -q 'resuming after step 10' must.out || fail "did not go back to step 10: $(cat must.out)"
same_model run whole

for step in 10 20 30; do echo '{' >"run/checkpoints/step-000000$step/manifest.json"; done
refuses 1 'step-000000' "${train[@]}" --resume auto
refuses 2 'already holds a run' "${train[@]}"
refuses 1 'step-00000010' "${train[@]}" --resume run/checkpoints/step-00000010
