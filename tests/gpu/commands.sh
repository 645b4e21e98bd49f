# What users do with a model on a GPU, against the CPU: fine-tuning, recomputation, texts side by side, chats,
# benchmarks, packed weights. usage: commands.sh PROGRAM
source "$(dirname "$0")/../e2e/common.sh"
[ -e /dev/nvidiactl ] || { echo "skipped: no GPU"; exit 77; }
make_text text 30
gpu=(--device cuda --deterministic)

# A model with a chat tokenizer, large enough that what it says is decided by more than rounding.
must "$parallax" tokenizer train t.json --data text --vocab-size 330 --special "<|endoftext|>" "<|im_start|>" "<|im_end|>"
start=("$parallax" train --data text --tokenizer t.json "${tiny[@]}" --context 128 --mixer softmax --dtype f32)
must "${start[@]}" "${gpu[@]}" --out run --steps 60 --lr 0.01
must "$parallax" convert run model --attention parallax --probe zero-gain
echo '{"chat_template": "<|im_start|> ns.last_query_index reasoning_content.strip( enable_thinking is false <tool_response>"}' \
    >model/tokenizer_config.json

# Adapters, the probe, and everything: the CPU's losses in f32, and near them in bf16.
tune=("$parallax" train --data text --from model --batch 4 --threads 1 --eval-every 0 --checkpoint-every 0 --steps 12)
for part in all probe lora lora+probe; do
    for optimizer in muon adamw; do
        name=$part-$optimizer
        must "${tune[@]}" --train "$part" --optimizer "$optimizer" --out "cpu-$name" --device cpu --dtype f32
        must "${tune[@]}" --train "$part" --optimizer "$optimizer" --out "gpu-$name" "${gpu[@]}" --dtype f32
        same_losses "cpu-$name" "gpu-$name" 1e-4
        must "${tune[@]}" --train "$part" --optimizer "$optimizer" --out "gpu16-$name" "${gpu[@]}"
        same_losses "cpu-$name" "gpu16-$name" 2e-2
    done
done

# Recomputation changes no bit, and neither do adapters that are resumed half-way.
for recompute in selective full; do
    for dtype in f32 bf16; do
        must "${tune[@]}" "${gpu[@]}" --dtype "$dtype" --recompute "$recompute" --out "$recompute-$dtype"
        [ -d "none-$dtype" ] || must "${tune[@]}" "${gpu[@]}" --dtype "$dtype" --recompute none --out "none-$dtype"
        same_losses "none-$dtype" "$recompute-$dtype" 0
        same_model "none-$dtype" "$recompute-$dtype"
    done
done
must "${tune[@]}" "${gpu[@]}" --train lora --checkpoint-every 6 --out whole
cp -r whole cut
rm -r cut/checkpoints/step-00000012
must "$parallax" train --resume auto --out cut
same_losses whole cut 0
same_model whole cut

# Texts side by side: the CPU's, whatever the company, the cache and the way weights are held allow.
sample() { "$parallax" sample "$@" --temperature 0 --max-tokens 24 --threads 1; }
for i in $(seq 11); do head -c $((i * 37 % 90 + 3)) "text/text0$((i + 10)).txt" | tr '\n' ' '; echo; done >prompts.txt
sample model --prompts prompts.txt --device cpu --ignore-end >side.cpu
[ "$(wc -l <side.cpu)" -eq 11 ] || fail "eleven prompts gave $(cat side.cpu)"
for how in "--batch 1" "--batch 4" "--batch 11" "--batch 4 --cache-tokens 256"; do
    # shellcheck disable=SC2086
    sample model --prompts prompts.txt --device cuda --dtype f32 --ignore-end $how --stats >side.gpu 2>side.stats
    cmp side.cpu side.gpu || fail "$how: $(diff side.cpu side.gpu)"
    grep -q '^cache: .* pages of 64 tokens' side.stats || fail "nothing of the cache in $(cat side.stats)"
done
refuses 2 '--cache-tokens: 64 tokens are 1 pages of 64, but prompt 1 ' "$parallax" sample model --prompts prompts.txt \
    --device cuda --cache-tokens 64 --max-tokens 100
for weights in bf16 int8; do
    sample model --prompts prompts.txt --device cpu --ignore-end --weights "$weights" >side.cpu
    sample model --prompts prompts.txt --device cuda --dtype f32 --ignore-end --weights "$weights" >side.gpu
    cmp side.cpu side.gpu || fail "--weights $weights: $(diff side.cpu side.gpu)"
    sample model --prompts prompts.txt --device cuda --ignore-end --weights "$weights" >side.16
    [ "$(wc -l <side.16)" -eq 11 ] || fail "--weights $weights in bf16: $(cat side.16)"
done

# A chat of two turns.
printf 'the fox\n\nthe cat\n' | sample model --turns --device cpu >chat.cpu
printf 'the fox\n\nthe cat\n' | sample model --turns --device cuda --dtype f32 >chat.gpu
[ -s chat.cpu ] && cmp chat.cpu chat.gpu || fail "chats differ: $(cat chat.cpu chat.gpu)"

# Benchmarks: the same answers, and perplexities that agree; of a run with adapters too.
for i in 1 2 3 4 5 6 7 8; do
    echo "{\"query\": \"the quick fox $i\", \"choices\": [\"sees the dog\", \"finds a red cat\", \"$i\"], \"gold\": $((i % 3))}"
done >mine.jsonl
for word in the a one; do echo "{\"text\": \"every dog sees $word\"}"; done >lambada.jsonl
echo '{"page": " = the fox = \n the quick brown fox sees the dog ."}' >pages.jsonl
for run in model gpu-lora-muon; do
    for on in cpu cuda; do
        "$parallax" eval "$run" --task mine.jsonl lambada wikitext=pages.jsonl --device "$on" --dtype f32 --json >"eval.$on"
        grep -o '"acc[a-z_]*":\[[01,]*\]' "eval.$on" >"acc.$on"
        grep -o '"[a-z]*_per[a-z_]*":{"value":[0-9.]*' "eval.$on" | sed 's/:.*:/ /' >"perplexity.$on"
    done
    [ "$(wc -l <acc.cpu)" -ge 3 ] && [ -s perplexity.cpu ] || fail "no results in $(cat eval.cpu)"
    cmp acc.cpu acc.cuda || fail "answers differ: $(cat acc.cpu acc.cuda)"
    paste -d ' ' perplexity.cpu perplexity.cuda | awk '{ d = ($2 - $4) / $2; if ($1 != $3 || d * d > 1e-8) { print; bad = 1 } }
        END { exit bad }' || fail "perplexities of $run differ"
done
