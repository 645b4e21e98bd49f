# Bad input: a sentence that names the thing and both values, the right exit code, and nothing half-written.
source "$(dirname "$0")/common.sh"
make_text text 30
train=("$parallax" train --out run "${tiny[@]}")
untouched() { [ ! -e run ] || fail "a refused run left $(find run)"; }

# Data.
refuses 2 '^parallax: --data' "${train[@]}"
refuses 1 'no/such/file' "${train[@]}" --data no/such/file
: >empty.txt
refuses 1 'empty.txt' "${train[@]}" --data empty.txt
mkdir nothing
refuses 1 'nothing' "${train[@]}" --data nothing
head -c 1000 "$parallax" >binary.txt
refuses 1 'binary.txt' "${train[@]}" --data binary.txt
refuses 1 'missing.json' "${train[@]}" --data text --tokenizer missing.json
if [ "$(id -u)" -ne 0 ]; then
    echo secret >locked.txt
    chmod 000 locked.txt
    refuses 1 'locked.txt.*Permission' "${train[@]}" --data locked.txt
fi
untouched

# Options and configuration files.
echo '{"data": ["text"], "hiden_size": 3}' >config.json
refuses 2 'config.json: .*"hiden_size".*nearest is "hidden_size"' "${train[@]}" --config config.json
echo '{"data": ["text"], "steps": "many"}' >config.json
refuses 2 'config.json: steps: is a string but must be a whole number' "${train[@]}" --config config.json
echo '{"data": ["text"], "steps": 5,}' >config.json
refuses 2 'config.json: line 1' "${train[@]}" --config config.json
echo '[1]' >config.json
refuses 2 'config.json: is a list but must be an object' "${train[@]}" --config config.json
refuses 1 'absent.json' "${train[@]}" --config absent.json
refuses 2 '--steps: "ten" is not a whole number' "${train[@]}" --data text --steps ten
refuses 2 '--steps: 0 is less than the smallest allowed, 1' "${train[@]}" --data text --steps 0
refuses 2 '--clip: "nan"|--clip: the value must be finite' "${train[@]}" --data text --clip nan
refuses 2 '--optimizer: "sgd" is not one of muon\|adamw' "${train[@]}" --data text --optimizer sgd
refuses 2 '--mixer: "mamba" is none of softmax, parallax' "${train[@]}" --data text --mixer mamba
refuses 2 '--window: "x"' "${train[@]}" --data text --window x
refuses 2 '--seed: needs a value' "${train[@]}" --data text --seed
refuses 2 '3.*2|2.*3' "${train[@]}" --data text --heads 3 --kv-heads 2
refuses 2 'head.*15|15.*even' "${train[@]}" --data text --head-dim 15
refuses 2 '--sample-tokens: 100 after a prompt of 0 tokens' "${train[@]}" --data text --sample-every 5
untouched

# Where to write.
: >file
refuses 1 'file: ' "$parallax" train --data text --out file/run "${tiny[@]}" --steps 2
must "${train[@]}" --data text --steps 4 --checkpoint-every 2
refuses 2 'run: already holds a run; continue it with --resume auto' "${train[@]}" --data text --steps 4
cp -r run before

# A checkpoint of another model, by tensor and both shapes; the run stays as it was.
refuses 1 'embed_tokens.weight.*(32.*48|48.*32)' "$parallax" train --resume auto --out run --hidden-size 48 --steps 8
refuses 1 'no/such' "$parallax" train --resume no/such --out run2 --data text
diff -r before run || fail "a refused resume changed the run"
[ ! -e run2 ] || fail "a refused resume left run2"

# Sampling and evaluation.
long=$(printf 'x%.0s' $(seq 40))
refuses 2 '40.*32' "$parallax" sample run "$long"
refuses 2 '(100|104).*32' "$parallax" sample run "text" --max-tokens 100
refuses 2 '--top-p: 1.5 is more than the largest allowed, 1' "$parallax" sample run x --top-p 1.5
refuses 1 'nowhere' "$parallax" sample nowhere "x"
refuses 2 '--data' "$parallax" eval run
refuses 1 'no/such' "$parallax" eval run --data no/such
refuses 1 'empty.txt' "$parallax" eval run --data empty.txt
cp -r run/checkpoints/step-00000004 model
truncate -s 1000 model/model.safetensors
refuses 1 'model.safetensors' "$parallax" eval model --data text
rm model/manifest.json
echo '{"model_type": "gpt2"}' >model/config.json
refuses 1 'config.json.*gpt2' "$parallax" sample model x
refuses 2 'not UTF-8 text' "$parallax" train --data text --out $'run\xff' "${tiny[@]}" --steps 1
[ ! -e $'run\xff/checkpoints' ] || fail "a refused run left a checkpoint"

# A loss that is not finite: the step is named, the last good checkpoint is named, kept, and usable.
must "$parallax" train --data text --out nan "${tiny[@]}" --steps 4 --checkpoint-every 2
cp -r nan/checkpoints good
refuses 1 'step [56]: .*; the last good checkpoint is nan/checkpoints/step-00000004' \
    "$parallax" train --out nan --resume auto --steps 30 --checkpoint-every 1 --schedule constant --lr 1e30
diff -r good nan/checkpoints || fail "a diverged run changed its checkpoints"
must "$parallax" eval nan --data text --threads 1
refuses 1 'step [12]: .*; no checkpoint had been written' "$parallax" train --data text --out nan2 "${tiny[@]}" \
    --steps 30 --checkpoint-every 0 --schedule constant --clip 0 --lr 1e38 --optimizer adamw --weight-decay 0

refuses 2 '--goals: "nix" is none of all, parallax-adamw' "$parallax" bench step --goals nix

# More memory than any machine has is refused before any of it is asked for.
refuses 1 'memory: .* GiB are free, but training needs [0-9.]* GiB: .*; even --recompute full --batch 1 needs' "$parallax" train \
    --data text --out huge "${tiny[@]}" --hidden-size 32768 --intermediate-size 131072 --layers 256
[ ! -e huge ] || fail "a refused run left a folder"

# A disk that takes no more: files are limited to 8 KiB, less than the weights.
refuses 1 'full/.*(File too large|No space)' bash -c \
    "trap '' XFSZ; ulimit -f 8; exec \"\$@\"" _ "$parallax" train --data text --out full "${tiny[@]}" --steps 4 --checkpoint-every 2
[ -z "$(find full/checkpoints -mindepth 1 -maxdepth 1 ! -name '*.partial')" ] || fail "half a checkpoint is there"
must "$parallax" train --data text --out full "${tiny[@]}" --steps 4 --checkpoint-every 2 --resume auto
same_model full run
