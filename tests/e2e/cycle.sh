# Train, interrupt, resume, evaluate, sample: a run that was cut in half ends with the bytes of one that was not, and
# writes the same text.
source "$(dirname "$0")/common.sh"
make_text text 30

must "$parallax" train --data text --out whole "${tiny[@]}" --steps 30 --checkpoint-every 10
must "$parallax" train --data text --out halves "${tiny[@]}" --steps 30 --checkpoint-every 10 --max-seconds 0.0001
grep -q 'stopped after step' must.out || fail "did not stop early: $(cat must.out)"
must "$parallax" train --resume auto --data text --out halves "${tiny[@]}" --steps 30 --checkpoint-every 10
same_model whole halves

# Stop for good at step 10 by removing what came later, and continue from there with the recorded options alone.
rm -r halves/checkpoints/step-00000020 halves/checkpoints/step-00000030
must "$parallax" train --resume auto --out halves
grep -q 'resuming after step 10' must.out || fail "did not resume after step 10: $(cat must.out)"
same_model whole halves
same_losses whole halves 0
cmp <(losses whole) <(losses halves) || fail "the logs' losses differ"

# The same with the optimiser's state in bf16, whose rounding goes by step and place alone; its file is smaller.
for optimizer in muon adamw; do
    must "$parallax" train --data text --out "bf16-$optimizer" "${tiny[@]}" --steps 20 --checkpoint-every 10 \
        --optimizer "$optimizer" --moments bf16
    cp -r "bf16-$optimizer" "cut-$optimizer"
    rm -r "cut-$optimizer/checkpoints/step-00000020"
    must "$parallax" train --resume auto --out "cut-$optimizer"
    same_state "bf16-$optimizer" "cut-$optimizer"
done
[ "$(stat -c %s "$(final bf16-muon)/optimizer.safetensors")" -lt "$(($(stat -c %s "$(final whole)/optimizer.safetensors") * 2 / 3))" ] ||
    fail "states in bf16 are no smaller"
refuses 1 'is of dtype BF16, but F32 is expected \(--moments\)' \
    "$parallax" train --resume auto --out cut-muon --moments f32 --steps 25

# A named checkpoint into another folder; a differing option is named.
must "$parallax" train --resume whole/checkpoints/step-00000010 --out branch --seed 1 --eval-every 5
grep -q 'eval_every: 5 now, but 10 in the checkpoint' must.out || fail "the differing option is not named"
same_model whole branch

# A finished run has nothing to do, and more steps continue it.
must "$parallax" train --resume auto --out whole
grep -q 'all 30 steps are done' must.out || fail "does not say that all steps are done"
same_model whole halves
must "$parallax" train --resume auto --out whole --steps 35
[ "$(basename "$(final whole)")" = step-00000035 ] || fail "35 steps did not end at step 35"

# Evaluation of both halves of the truth, and greedy text, agree.
"$parallax" eval branch --data text --json --threads 1 | sed 's/"seconds.*//; s/"model":"[^"]*"//' >eval.1
"$parallax" eval halves --data text --json --threads 1 | sed 's/"seconds.*//; s/"model":"[^"]*"//' >eval.2
grep -q '"bits_per_byte":' eval.1 || true
cmp eval.1 eval.2 || fail "evaluations differ: $(cat eval.1 eval.2)"
"$parallax" sample branch "the " --temperature 0 --max-tokens 20 --raw --threads 1 >text.1
echo -n "the " | "$parallax" sample halves - --temperature 0 --max-tokens 20 --raw --threads 1 >text.2
echo -n "the " >prompt
"$parallax" sample halves --file prompt --temperature 0 --max-tokens 20 --raw --threads 1 >text.3
[ -s text.1 ] || fail "no text was sampled"
# Up to the first place of its own fourth and fifth byte.
stop=$(head -c 5 text.1 | tail -c 2)
"$parallax" sample halves "the " --temperature 0 --max-tokens 20 --raw --threads 1 --stop "no such text" "$stop" >text.4
awk -v RS='\001' -v stop="$stop" '{ printf "%s", substr($0, 1, index($0, stop) - 1) }' text.1 | cmp - text.4 ||
    fail "--stop \"$stop\" left $(cat text.4) of $(cat text.1)"
# Several prompts side by side: what each is alone, with its own seed, however many go together.
printf 'the \n\na quick brown\nfox' >prompts.txt
printf '{"prompt": "the "}\n{"prompt": "a quick brown"}\n{"prompt": "fox"}\n' >prompts.jsonl
"$parallax" sample halves --prompts prompts.txt --max-tokens 12 --threads 1 --seed 5 >side.1
"$parallax" sample halves --prompts prompts.jsonl --batch 2 --max-tokens 12 --threads 1 --seed 5 >side.2
cmp side.1 side.2 || fail "the company of a prompt changes its text: $(cat side.1 side.2)"
[ "$(wc -l <side.1)" -eq 3 ] || fail "three prompts gave $(cat side.1)"
"$parallax" sample halves --prompts prompts.txt --max-tokens 12 --threads 1 --temperature 0 >side.3
# Few places, or a small cache, change when a text goes on, not how; what was taken is said.
"$parallax" sample halves --prompts prompts.txt --batch 3 --cache-tokens 130 --max-tokens 12 --threads 1 --seed 5 --stats \
    >side.4 2>stats
cmp side.1 side.4 || fail "the cache of a prompt changes its text: $(cat side.1 side.4)"
grep -q '^3 texts in .* s: .* prompt tokens, ' stats || fail "no counts in $(cat stats)"
grep -q '^cache: 2 pages of 64 tokens, .* MB, 2 of them taken at most; ' stats || fail "no cache in $(cat stats)"
refuses 2 '--cache-tokens: 63 tokens are 0 pages of 64, but prompt 1 of 4 tokens may take 1 with 12 new ones' \
    "$parallax" sample halves --prompts prompts.txt --max-tokens 12 --cache-tokens 63
alone=$("$parallax" sample halves "fox" --max-tokens 12 --threads 1 --temperature 0)
[[ "$(tail -n 1 side.3)" == *"\"prompt\":\"fox\",\"text\":\"$alone\","* ]] || fail "alone $alone, together $(cat side.3)"
refuses 2 '--prompts: prompts.txt holds all prompts' "$parallax" sample halves "x" --prompts prompts.txt
refuses 2 '--prompts: prompts.txt holds all prompts' "$parallax" sample halves --chat --prompts prompts.txt
echo '{"text": 1}' >bad.jsonl
refuses 1 'bad.jsonl:1: has no text "prompt"' "$parallax" sample halves --prompts bad.jsonl
: >none.txt
refuses 1 'none.txt: holds no prompt' "$parallax" sample halves --prompts none.txt
refuses 2 'a stop string is empty' "$parallax" sample halves "the " --stop ""
cmp text.1 text.2 && cmp text.1 text.3 || fail "texts at temperature 0 differ"
must "$parallax" info branch
grep -q 'self_attn.r_proj.weight' must.out || fail "info does not list the probe's projection"
