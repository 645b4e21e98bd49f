# Training that starts from a model folder: shape and tokenizer are the model's, a resumed run ends with the same bits,
# a silent probe begins at the softmax model's loss, what is frozen stays, and of chats only the answers are learned.
# usage: finetune.sh PROGRAM
source "$(dirname "$0")/common.sh"
make_text text 30
must "$parallax" train --data text --out run "${tiny[@]}" --steps 6 --mixer softmax
must "$parallax" convert run plain
for probe in zero-gain zero-weight copy-q; do
    must "$parallax" convert plain "$probe" --attention parallax --probe "$probe"
done
tune=("$parallax" train --data text --batch 4 --threads 1 --eval-every 0 --checkpoint-every 0)

# Shape, context and tokenizer come from the folder, and the record says so.
must "${tune[@]}" --from plain --out softmax --steps 6
for said in '"from":"plain"' '"hidden_size":32' '"mixer":"softmax"' '"context":32' '"tokenizer":"model"'; do
    head -n 1 softmax/log.jsonl | tr -d ' ' | grep -q -- "$said" || fail "$said is not in $(head -n 1 softmax/log.jsonl)"
done
cmp plain/tokenizer.json "$(final softmax)/tokenizer.json" || fail "another tokenizer"

# Both zero starts begin at the softmax model's loss, bit for bit, and then leave it; r = q begins elsewhere.
losses softmax | head -n 1 >first
for probe in zero-gain zero-weight copy-q; do
    must "${tune[@]}" --from "$probe" --out "tuned-$probe" --steps 6
    losses "tuned-$probe" | head -n 1 >begin
    [ "$probe" = copy-q ] || cmp first begin || fail "$probe begins at $(cat begin), softmax at $(cat first)"
    [ "$(losses "tuned-$probe" | tail -n 1)" != "$(losses softmax | tail -n 1)" ] || fail "the probe of $probe does nothing"
done
if cmp -s first begin; then fail "copy-q begins as softmax"; fi

# The probe alone: the rest of the model keeps every bit, with either optimiser; the probe does not.
for optimizer in muon adamw; do
    must "${tune[@]}" --from zero-gain --train probe --optimizer "$optimizer" --out "probe-$optimizer" --steps 6
    losses "probe-$optimizer" | head -n 1 >begin
    cmp first begin || fail "--train probe begins at $(cat begin), softmax at $(cat first)"
    must "$parallax" convert "probe-$optimizer" "dropped-$optimizer" --attention softmax --drop-probe
    cmp plain/model.safetensors "dropped-$optimizer/model.safetensors" || fail "a frozen weight moved ($optimizer)"
    if cmp -s zero-gain/model.safetensors "$(final "probe-$optimizer")/model.safetensors"; then fail "no probe moved"; fi
done

# Adapters: the run begins as its model, ends with both optimisers elsewhere, and is sampled and scored as it is; merged
# into a plain folder it is the same model, whose layout is the first one's. Frozen weights are in the checkpoint bit for
# bit, so dropping a probe that learned beside them leaves a model with merged weights and nothing else.
for optimizer in muon adamw; do
    must "${tune[@]}" --from plain --train lora --lora-rank 4 --optimizer "$optimizer" --out "lora-$optimizer" --steps 6
    losses "lora-$optimizer" | head -n 1 >begin
    cmp first begin || fail "--train lora begins at $(cat begin), softmax at $(cat first)"
    must "$parallax" convert "lora-$optimizer" "merged-$optimizer"
    grep -q '^merged: .* parameters of adapters' "$work/must.out" || fail "nothing is said of merging"
    grep -q '"model_type": "qwen3"' "merged-$optimizer/config.json" || fail "another layout: $(cat "merged-$optimizer/config.json")"
    if grep -q lora "merged-$optimizer/config.json"; then fail "the merged folder tells of adapters"; fi
    for folder in "lora-$optimizer" "merged-$optimizer"; do
        must "$parallax" eval "$folder" --data text/text000.txt --json
        sed -n 's/.*"loss": *\([0-9.]*\).*/\1/p' "$work/must.out" >"eval-$(basename "$folder")"
        [ -s "eval-$folder" ] || fail "no loss in $(cat "$work/must.out")"
        must "$parallax" sample "$folder" "the" --temperature 0 --max-tokens 8 --raw
        cp "$work/must.out" "text-$folder"
        must "$parallax" sample "$folder" "the" --temperature 0 --max-tokens 8 --weights int8
    done
    paste -d ' ' "eval-lora-$optimizer" "eval-merged-$optimizer" | awk '{ d = $1 - $2; exit !(d * d < 1e-10) }' ||
        fail "apart $(cat "eval-lora-$optimizer"), merged $(cat "eval-merged-$optimizer")"
    cmp "text-lora-$optimizer" "text-merged-$optimizer" || fail "the merged model writes something else"
done
must "${tune[@]}" --from zero-gain --train lora+probe --out lora-probe --steps 6
losses lora-probe | head -n 1 >begin
cmp first begin || fail "--train lora+probe begins at $(cat begin), softmax at $(cat first)"
if tr -d '\0' <"$(final lora-probe)/model.safetensors" | grep -aq r_proj.lora; then fail "the probe has adapters"; fi

# Interrupted and resumed, without the folder it began with: the same bits, and the files beside the weights.
for name in tokenizer_config.json chat_template.jinja; do echo "{\"of\": \"$name\"}" >"zero-gain/$name"; done
for part in all probe lora lora+probe; do
    must "${tune[@]}" --from zero-gain --train "$part" --out "whole-$part" --steps 8 --checkpoint-every 3
    cp -r zero-gain start
    must "${tune[@]}" --from start --train "$part" --out "cut-$part" --steps 8 --checkpoint-every 3
    rm -rf start "cut-$part/checkpoints/step-00000008" "cut-$part/checkpoints/step-00000006"
    must "$parallax" train --resume auto --out "cut-$part"
    same_losses "whole-$part" "cut-$part" 0
    same_model "whole-$part" "cut-$part"
    for name in tokenizer_config.json chat_template.jinja; do
        cmp "zero-gain/$name" "$(final "cut-$part")/$name" || fail "$name is not what it was"
        grep -q "\"$name\"" "$(final "cut-$part")/manifest.json" || fail "the manifest does not list $name"
    done
done
must "$parallax" convert cut-all exported
cmp zero-gain/chat_template.jinja exported/chat_template.jinja || fail "the export lacks the template"

# Chats: only the assistant's words are learned, with the template of the folder; resumed, the same bits.
must "$parallax" tokenizer train t.json --data text --vocab-size 330 --special "<|endoftext|>" "<|im_start|>" "<|im_end|>"
must "$parallax" train --data text --tokenizer t.json --out talk "${tiny[@]}" --context 128 --steps 2 --mixer softmax
must "$parallax" convert talk chat --attention parallax
echo '{"chat_template": "<|im_start|> ns.last_query_index reasoning_content.strip( enable_thinking is false <tool_response>"}' \
    >chat/tokenizer_config.json
for i in $(seq 40); do
    echo "{\"messages\": [{\"role\": \"user\", \"content\": \"$((i * 7919 % 1000)) $((i * 104729 % 1000))\"}, {\"role\": \"assistant\", \"content\": \"the fox\"}]}"
done >chats.jsonl
talk=("$parallax" train --data chats.jsonl --from chat --context 128 --batch 4 --threads 1 --checkpoint-every 0 --eval-every 0)
must "${talk[@]}" --out learned --steps 150 --lr 0.03
head -n 1 learned/log.jsonl | tr -d ' ' | grep -q '"chat_template":"qwen3"' || fail "the template is not recorded"
# The answer is always the same, the six digits asked never: were they scored, the loss would stay above 0.2.
losses learned | tail -n 1 | awk '{ exit !($2 < 0.1) }' || fail "the last loss is $(losses learned | tail -n 1)"
must "${talk[@]}" --out talk-whole --steps 6 --checkpoint-every 3
cp -r talk-whole talk-cut
rm -r talk-cut/checkpoints/step-00000006
must "$parallax" train --resume auto --out talk-cut
same_model talk-whole talk-cut
echo '{"messages": [{"role": "user", "content": "hi"}]}' >>chats.jsonl
refuses 1 'chats.jsonl:41: the chat has no turn of an assistant to learn from' "${talk[@]}" --out no --steps 2
refuses 1 'chats.jsonl:1: the line is a chat, but no chat template is known' \
    "${tune[@]}" --data chats.jsonl --out no --from plain --steps 2

# Contradictions name both values and leave nothing.
bad=("${tune[@]}" --out no --steps 2 --from zero-gain)
refuses 2 '--hidden-size: 48 contradicts 32 of zero-gain' "${bad[@]}" --hidden-size 48
refuses 2 '--layers: 1 contradicts 2 of zero-gain' "${bad[@]}" --layers 1
refuses 2 '--mixer: softmax for layer 1 contradicts parallax of zero-gain' "${bad[@]}" --mixer parallax,softmax
refuses 2 '--window: 8 for layer 0 contradicts 0 of zero-gain' "${bad[@]}" --window 8
refuses 2 '--qk-norm: off contradicts on of zero-gain' "${bad[@]}" --no-qk-norm
refuses 2 '--rope-theta: 10000 contradicts 1000000 of zero-gain' "${bad[@]}" --rope-theta 10000
refuses 2 '--probe-start: normal contradicts zero-gain of zero-gain' "${bad[@]}" --probe-start normal
refuses 2 '--context: 64 tokens are more than the 32 positions of zero-gain' "${bad[@]}" --context 64
refuses 2 '--tokenizer: bytes contradicts --from' "${bad[@]}" --tokenizer bytes
refuses 2 '--vocab-size: 300 contradicts 257 of zero-gain' "${bad[@]}" --vocab-size 300
echo '{"from": "zero-gain", "heads": 4}' >config.json
refuses 2 '--heads: 4 contradicts 2 of zero-gain' "${tune[@]}" --out no --config config.json
refuses 2 '--train: probe is to train the probe, but no layer of the model has one' "${tune[@]}" --out no --from plain --train probe
refuses 2 '--train: lora\+probe is to train the probe' "${tune[@]}" --out no --from plain --train lora+probe
refuses 2 '--train: lora adapts a model, but --from names none' "$parallax" train --data text --out no --train lora
refuses 2 '--lora-rank: belongs to --train lora, but --train is all' "${bad[@]}" --lora-rank 4
refuses 2 '--lora-alpha: belongs to --train lora, but --train is probe' "${bad[@]}" --train probe --lora-alpha 4
refuses 2 '--lora-targets: belongs to --train lora' "${bad[@]}" --lora-targets all
lora=("${tune[@]}" --out no --steps 2 --from plain --train lora)
refuses 2 'the rank of lora is 16 but must be from 1 to below the 16 of k_proj' "${lora[@]}" --lora-rank 16
refuses 2 '--lora-targets: "head" is none of all, q_proj' "${lora[@]}" --lora-targets q_proj,head
refuses 2 '--lora-targets: r_proj is in no layer of plain' "${lora[@]}" --lora-targets r_proj
refuses 2 '--lora-targets: all names r_proj, which --train lora\+probe trains itself' \
    "${bad[@]}" --train lora+probe --lora-targets all
refuses 2 '--from: .*lora-muon.* holds adapters that are still apart' "${tune[@]}" --out no --steps 2 --from lora-muon
refuses 2 '--lora-rank: 2 contradicts 4 of lora-muon' "$parallax" train --resume auto --out lora-muon --steps 8 --lora-rank 2
refuses 2 '--lora-rank: 0 contradicts 8 of whole-lora' "$parallax" train --resume auto --out whole-lora --steps 9 --train all
refuses 2 '--tokenizer: model is the one of --from, which is not given' "${tune[@]}" --out no --tokenizer model
refuses 1 'no/such: does not exist' "${tune[@]}" --out no --from no/such
refuses 2 'softmax: already holds a run' "${tune[@]}" --out softmax --from plain
refuses 2 '--from: "plain" is not "zero-gain", from which the run of whole-all/checkpoints/step-00000008 began' \
    "$parallax" train --resume auto --out whole-all --from plain
cp -r plain cut
truncate -s 1000 cut/model.safetensors
rm -f cut/manifest.json
refuses 1 'cut/model.safetensors: ' "${tune[@]}" --out no --from cut
rm cut/tokenizer.json
refuses 1 'cut: holds no tokenizer' "${tune[@]}" --out no --from cut
[ ! -e no ] || fail "a refused run left $(find no)"
