# Linear layers in 8 bits: nearly the course of f32 but not quite, the same bits with recomputed activations and after a
# resume, which keeps the setting, and the same course where several processes share a step.
source "$(dirname "$0")/common.sh"
make_text text 30
train=("$parallax" train --data text --steps 20 --checkpoint-every 10 --keep 0 "${tiny[@]}")

must "${train[@]}" --out f32
must "${train[@]}" --out plain --dtype fp8
same_losses f32 plain 2e-2
cmp -s <(losses f32) <(losses plain) && fail "--dtype fp8 changes nothing"
head -n 1 plain/log.jsonl | grep -q '"dtype":"fp8"' || fail "not recorded: $(head -n 1 plain/log.jsonl)"
must "${train[@]}" --out recomputed --dtype fp8 --recompute full
same_losses plain recomputed 0
same_model plain recomputed
must "${train[@]}" --out ranks --dtype fp8 --batch 2 --ranks 2
same_losses plain ranks 2e-3

cp -r plain resumed
rm -r resumed/checkpoints/step-00000020
must "$parallax" train --out resumed --resume auto
same_losses plain resumed 0
same_model plain resumed

must "$parallax" train --from plain --tokenizer model --data text --train lora --dtype fp8 --out tuned --steps 3 \
    --context 32 --batch 4 --threads 1
refuses 1 'dtype fp8: model.layers.0.self_attn.k_proj.weight is \[24,32\], but both extents must be multiples of 16' \
    "${train[@]}" --out refused --dtype fp8 --heads 2 --head-dim 24 --kv-heads 1
[ ! -e refused ] || fail "a refused run left $(find refused)"
