# A tokenizer from text to a model that uses it: learnt, checked, trained with, resumed, evaluated, sampled, refused.
pieces=$(realpath "$(dirname "$0")/../golden/sentencepiece")
source "$(dirname "$0")/common.sh"
export XDG_CACHE_HOME="$work/cache"
make_text text 40

must "$parallax" tokenizer train t.json --data text --vocab-size 320 --special "<|endoftext|>" "<|im_end|>"
must "$parallax" tokenizer train again.json --data text --vocab-size 320 --special "<|endoftext|>" "<|im_end|>"
cmp t.json again.json || fail "the same text gives two tokenizers"

# Ids and back, by every road.
[ "$("$parallax" tokenize t.json "<|im_end|>")" = 319 ] || fail "<|im_end|> is not 319"
[ "$("$parallax" tokenize t.json "<|im_end|>" --no-added --count)" -gt 1 ] || fail "--no-added found a special token"
sentence="the quick brown fox sees a slow dog, caf$(printf '\303\251')"
ids=$("$parallax" tokenize t.json "$sentence")
[ "$(wc -w <<<"$ids")" -lt 40 ] || fail "no merges in: $ids"
[ "$("$parallax" tokenize t.json "$ids" --decode)" = "$sentence" ] || fail "decoding gives another text"
printf '%s' "$sentence" >sentence.txt
[ "$("$parallax" tokenize t.json --file sentence.txt)" = "$ids" ] || fail "--file gives other ids"
[ "$("$parallax" tokenize t.json - <sentence.txt)" = "$ids" ] || fail "standard input gives other ids"
json=$("$parallax" tokenize t.json --file sentence.txt --json)
[ "$json" = "{\"ids\":[$(tr ' ' ',' <<<"$ids")],\"count\":$(wc -w <<<"$ids")}" ] || fail "JSON: $json"
"$parallax" tokenize t.json "$json" --decode >/dev/null 2>&1 && fail "letters were taken for ids"
[ "$("$parallax" tokenize t.json "[${ids// /, }]" --decode --json)" = "{\"text\":\"$sentence\"}" ] || fail "--decode --json"
[ "$("$parallax" tokenize t.json "319" --decode --no-special)" = "" ] || fail "--no-special wrote a name"

# Recorded cases.
printf '{"text": "%s", "ids": [%s], "decoded": "%s"}\n' "$sentence" "$(tr ' ' ',' <<<"$ids")" "$sentence" >good.jsonl
must "$parallax" tokenizer check t.json good.jsonl
sed 's/"ids": \[[0-9]*/"ids": [7/' good.jsonl >bad.jsonl
refuses 1 'bad.jsonl: 1 of 1 cases differ' "$parallax" tokenizer check t.json bad.jsonl
sed 's/"decoded": "the/"decoded": "thy/' good.jsonl >bad.jsonl
refuses 1 '1 of 1 cases differ' "$parallax" tokenizer check t.json bad.jsonl
echo '{"text": 5}' >bad.jsonl
refuses 1 'bad.jsonl:1: must be an object' "$parallax" tokenizer check t.json bad.jsonl
echo '{"text"' >bad.jsonl
refuses 1 'bad.jsonl:1: not valid JSON' "$parallax" tokenizer check t.json bad.jsonl
: >bad.jsonl
refuses 1 'bad.jsonl: holds no cases' "$parallax" tokenizer check t.json bad.jsonl

# A model that uses it; the checkpoint carries the very file, and a resumed run ends with the same bits.
train=("$parallax" train --data text --tokenizer t.json "${tiny[@]}" --sample-every 4 --sample-prompt "the <|im_end|>" --sample-tokens 8)
must "${train[@]}" --out run --steps 8 --checkpoint-every 4
cmp t.json "$(final run)/tokenizer.json" || fail "the checkpoint has another tokenizer"
must "${train[@]}" --out half --steps 4
must "$parallax" train --out half --resume auto --steps 8
must "$parallax" eval run --data text --threads 1
must "$parallax" sample run "the quick" --max-tokens 8
[ "$("$parallax" tokenize run "the" --count)" -ge 1 ] || fail "a run folder is no tokenizer"

# The same with SentencePiece's.
must "$parallax" train --data text --tokenizer "$pieces/llama.model" --out pieces "${tiny[@]}" --steps 2
cmp "$pieces/llama.model" "$(final pieces)/tokenizer.model" || fail "the checkpoint has another tokenizer.model"
grep -q tokenizer.model "$(final pieces)/manifest.json" || fail "the manifest does not list tokenizer.model"
must "$parallax" eval pieces --data text --threads 1
must "$parallax" sample pieces "the quick" --max-tokens 8
[ "$("$parallax" tokenize pieces "$("$parallax" tokenize pieces " the  quick")" --decode --no-special)" = " the  quick" ] ||
    fail "SentencePiece's ids decode to another text"

# Refusals.
refuses 2 '--vocab-size: 300 is less than the tokenizer.s 320' "$parallax" train --data text --tokenizer t.json --out r --vocab-size 300
refuses 2 '--vocab-size: 257 is less than 256 bytes and 2 special tokens' \
    "$parallax" tokenizer train x.json --data text --vocab-size 257 --special a1 b2
refuses 1 "added_tokens has '<a>' twice" "$parallax" tokenizer train x.json --data text --special "<a>" "<a>"
refuses 1 "the id of 'the' is" "$parallax" tokenizer train x.json --data text --special the
refuses 2 '--data: no file' "$parallax" tokenizer train x.json
refuses 2 '--split: "words" is not one of' "$parallax" tokenizer train x.json --data text --split words
refuses 1 'absent' "$parallax" tokenizer train x.json --data absent
[ ! -e x.json ] || fail "a refused training wrote x.json"
refuses 2 '400 is not in the vocabulary of 320' "$parallax" tokenize t.json "400" --decode
refuses 1 'not UTF-8: byte 0xff at offset 1' "$parallax" tokenize t.json "a$(printf '\377')"
refuses 1 'nothing.json' "$parallax" tokenize nothing.json "a"
mkdir empty
refuses 1 'empty' "$parallax" tokenize empty "a"
refuses 2 'there is no command "tokenizer learn"; the nearest' "$parallax" tokenizer learn
cp -r "$(final run)" other
rm other/manifest.json
must "$parallax" tokenizer train other/tokenizer.json --data text --vocab-size 330
refuses 1 'other: the tokenizer has 3[23][0-9] tokens but the model.s vocabulary is 320' "$parallax" sample other "x"

# A tokenizer that is large enough is compiled once; damage to the compiled form changes nothing.
awk '{ print } END { for (i = 0; i < 300000; i++) printf " " }' t.json >large.json
[ "$("$parallax" tokenize large.json "$sentence")" = "$ids" ] || fail "a large file gives other ids"
compiled=$(ls cache/parallax/*.vocab)
[ "$("$parallax" tokenize large.json "$sentence")" = "$ids" ] || fail "the compiled form gives other ids"
truncate -s 1000 "$compiled"
[ "$("$parallax" tokenize large.json "$sentence")" = "$ids" ] || fail "a damaged compiled form gives other ids"
[ "$(stat -c %s "$compiled")" -gt 1000 ] || fail "a damaged compiled form was not made anew"
