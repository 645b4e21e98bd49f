# Conversions as a user meets them: train, convert, evaluate, sample, and what is refused. usage: convert.sh PROGRAM
source "$(dirname "$0")/common.sh"
make_text text 20
must "$parallax" train --data text --out run "${tiny[@]}" --steps 4 --mixer softmax

# A run becomes a folder; a silent probe changes nothing that sampling can see.
"$parallax" convert run plain >out
grep -q '^plain: qwen3, .* in 1 file of .*, written in ' out || fail "what was written: $(cat out)"
grep -q '^proof: the logits of a prompt of 24 tokens equal the source.s bit for bit (f32, CPU; [^ ]*s)$' out ||
    fail "no proof: $(cat out)"
for probe in zero-gain zero-weight; do
    "$parallax" convert plain "$probe" --attention parallax --probe "$probe" >out
    grep -q '^added: .* parameters of the probe$' out && grep -q '^proof: ' out || fail "$probe: $(cat out)"
    "$parallax" sample plain "the quick" --max-tokens 12 >plain.txt
    "$parallax" sample "$probe" "the quick" --max-tokens 12 >probe.txt
    cmp plain.txt probe.txt || fail "$probe samples other text"
    "$parallax" convert "$probe" "$probe-back" --attention softmax --drop-probe >out
    cmp plain/model.safetensors "$probe-back/model.safetensors" || fail "$probe does not come back"
done
must "$parallax" convert plain copy --attention parallax --probe copy-q --dtype bf16
must "$parallax" sample copy "the quick" --max-tokens 4

# The same weights in shards, and from them.
"$parallax" convert plain shards --shard-size 0.00001 >out
ls shards/model-00001-of-*.safetensors shards/model.safetensors.index.json >/dev/null || fail "no shards"
must "$parallax" convert shards joined
cmp plain/model.safetensors joined/model.safetensors || fail "shards do not join"

# Fresh weights from a configuration: the same for the same seed, and a start for training.
must "$parallax" init plain/config.json fresh --seed 3
must "$parallax" init plain fresh2 --seed 3
cmp fresh/model.safetensors fresh2/model.safetensors || fail "equal seeds, unequal weights"
must "$parallax" info fresh

# Refusals leave nothing.
refuses 2 'plain: exists already' "$parallax" convert run plain
refuses 2 '--drop-probe' "$parallax" convert zero-gain no --attention softmax
refuses 2 '--probe: copy-q is how an added probe starts' "$parallax" convert plain no --probe copy-q
refuses 2 '--to: "gpt2" is not one of qwen3' "$parallax" convert plain no --to gpt2
refuses 1 'model_type "llama" needs that qk_norm is off' "$parallax" convert plain no --to llama
refuses 1 'no/such: does not exist' "$parallax" convert no/such no
refuses 2 '1 words are missing' "$parallax" convert plain
cp -r plain cut
truncate -s 1000 cut/model.safetensors
rm -f cut/manifest.json
refuses 1 'cut/model.safetensors: ' "$parallax" convert cut no
refuses 1 'no.partial/.*(File too large|No space)' bash -c \
    "trap '' XFSZ; ulimit -f 8; exec \"\$@\"" _ "$parallax" convert plain no
[ -z "$(find . -maxdepth 1 -name 'no*')" ] || fail "a refused conversion left $(find . -maxdepth 1 -name 'no*')"
