# Benchmarks as a user runs them: a task by name, by file and by both, results as JSON, and two models compared.
# usage: tasks.sh PROGRAM
source "$(dirname "$0")/common.sh"
make_text text 20
must "$parallax" train --data text --out run "${tiny[@]}" --steps 4
must "$parallax" train --data text --out run2 "${tiny[@]}" --steps 4 --seed 2
for i in 1 2 3 4 5 6 7 8; do
    echo "{\"query\": \"fox $i\", \"choices\": [\"dog\", \"red cat\", \"$i\"], \"gold\": $((i % 3))}"
done >mine.jsonl
for word in the a one; do echo "{\"text\": \"every dog sees $word\"}"; done >lambada.jsonl
echo '{"page": " = the fox = \n the quick brown fox sees the dog ."}' >pages.jsonl

"$parallax" eval run --task lambada mine.jsonl wikitext=pages.jsonl >table
for line in '^lambada  *3 .* acc ' '^multiple_choice  *8 .* acc ' ' acc_norm ' ' word_perplexity '; do
    grep -q "$line" table || fail "\"$line\" is not in the table: $(cat table)"
done

# Right and wrong answers do not depend on the batch.
for batch in 1 2 64; do
    "$parallax" eval run --task mine.jsonl lambada --batch "$batch" --json |
        grep -o '"acc[a-z_]*":\[[01,]*\]' >"batch$batch"
    [ "$(wc -l <"batch$batch")" -eq 4 ] || fail "not the values of 4 accuracies: $(cat "batch$batch")"
    cmp batch1 "batch$batch" || fail "--batch $batch changes answers"
done
"$parallax" eval run --task mine.jsonl --limit 2 --json | grep -q '"documents":2,' || fail "--limit is not kept"

# Two files of results, two models, one of each: the same comparison.
"$parallax" eval run --task mine.jsonl lambada --json >a.json
"$parallax" eval run2 --task mine.jsonl lambada --json >b.json
"$parallax" eval --compare a.json b.json >files
"$parallax" eval --compare run run2 --task mine.jsonl lambada >models
"$parallax" eval --compare a.json run2 --task mine.jsonl lambada >both
cmp files models && cmp files both || fail "comparisons differ: $(cat files models both)"
grep -q 'acc_norm .*McNemar, exact' files && grep -q 'perplexity .*paired, normal' files || fail "tests: $(cat files)"
"$parallax" eval --compare a.json a.json --json | grep -q '"p":1' || fail "a model differs from itself"

# Refusals.
refuses 2 '"lambda"; the nearest is "lambada"' "$parallax" eval run --task lambda
refuses 1 'nothing.jsonl' "$parallax" eval run --task nothing.jsonl
refuses 1 '\.: holds no copa.jsonl' "$parallax" eval run --task copa
refuses 1 'pages.jsonl:1: has not all fields of any layout of the task piqa' "$parallax" eval run --task piqa=pages.jsonl
refuses 1 'mine.jsonl:1: a continuation has .* must have 1 to 2' "$parallax" eval run --task mine.jsonl --context 2
refuses 2 'MODEL is missing' "$parallax" eval --data text
refuses 2 '--data cannot be given together' "$parallax" eval run --data text --task mine.jsonl
refuses 2 'takes two results or models, not 1' "$parallax" eval --compare a.json
refuses 2 '"run" is one too many' "$parallax" eval run --compare a.json b.json
refuses 2 'run2 is no .json file of results' "$parallax" eval --compare a.json run2
refuses 2 'has 2 tasks but .* has 1' "$parallax" eval --compare a.json run2 --task lambada
echo >>mine.jsonl
refuses 2 'were not the same file' "$parallax" eval --compare a.json run2 --task mine.jsonl lambada
echo '{"model": "m", "tasks": [{"task": "copa"}]}' >bad.json
refuses 1 'bad.json: tasks\[0\]: file is missing' "$parallax" eval --compare bad.json a.json
echo '{"model": "m"}' >bad.json
refuses 1 'bad.json: tasks is missing' "$parallax" eval --compare bad.json a.json
