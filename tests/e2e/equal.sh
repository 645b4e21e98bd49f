# Different ways to the same numbers: accumulation and a larger batch, portable and fastest kernels, recomputed and kept
# activations, a configuration file and flags, one thread and two.
source "$(dirname "$0")/common.sh"
make_text text 30
train=("$parallax" train --data text --steps 20 --checkpoint-every 0 "${tiny[@]}")

must "${train[@]}" --out plain
must "${train[@]}" --out accumulated --batch 2 --accumulate 2
same_losses plain accumulated 1e-4
must "${train[@]}" --out portable --portable
same_losses plain portable 1e-3
must "${train[@]}" --out recomputed --recompute full
same_losses plain recomputed 0
same_model plain recomputed
must "${train[@]}" --out selective --recompute selective
same_losses plain selective 0
same_model plain selective
must "${train[@]}" --out threads --threads 2
same_losses plain threads 1e-4
must "${train[@]}" --out again
same_model plain again

must "${train[@]}" --out moments --moments bf16
same_losses plain moments 1e-2

# The zero starts begin as softmax attention: the first loss is the same bits.
must "${train[@]}" --out zero --probe-start zero-gain --steps 1
must "${train[@]}" --out softmax --mixer softmax --steps 1
same_losses zero softmax 0

cat >config.json <<'JSON'
{"data": ["text"], "steps": 20, "checkpoint_every": 0, "hidden_size": 32, "intermediate_size": 64, "layers": 2,
 "heads": 2, "kv_heads": 1, "head_dim": 16, "context": 32, "batch": 4, "threads": 1, "eval_every": 1000}
JSON
must "$parallax" train --config config.json --out configured --eval-every 10
same_model plain configured
diff <(head -n 1 plain/log.jsonl) <(head -n 1 configured/log.jsonl) || fail "the recorded options differ"
