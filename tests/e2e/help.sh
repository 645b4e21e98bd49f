# The help pages: of the program and of every command, with usage, explanation, defaults and two examples.
source "$(dirname "$0")/common.sh"
"$parallax" --help >overview
for command in train sample eval "bench attention" "bench step" info parity; do
    grep -q "^  $command " overview || fail "\"$command\" is not in the overview"
done
sed -n '/^Commands/,/^$/s/^  \([a-z]*\( [a-z]*\)\{0,1\}\)  .*/\1/p' overview >commands
[ "$(wc -l <commands)" -ge 7 ] || fail "the overview lists $(cat commands)"
while read -r command; do
    # shellcheck disable=SC2086 # two words are two arguments
    "$parallax" $command --help >page
    "$parallax" help $command >page2
    cmp page page2 || fail "help $command differs from $command --help"
    grep -q "^usage: parallax $command" page || fail "$command: no usage"
    [ "$(sed -n '/^Examples/,$p' page | grep -c '^  parallax\|| parallax')" -eq 2 ] || fail "$command: not two examples"
    grep -q '^  --' page || fail "$command: no options"
    awk 'length > 118 { print; bad = 1 } END { exit bad }' page || fail "$command: a line is too long"
done <commands
# Into files: a reader that has seen enough would break the pipe of a program that is still writing.
"$parallax" --version >version
grep -q '^parallax [0-9]' version || fail "no version"
"$parallax" info >info
grep -q 'reference' info || fail "info names no kernel"
refuses 2 'nearest is "train"' "$parallax" trian
refuses 2 'nearest is "bench step"' "$parallax" bench stop
refuses 2 'nearest is --hidden-size' "$parallax" train --hiden-size 3
refuses 2 'words are missing' "$parallax" sample
refuses 2 'one word too many' "$parallax" train text
refuses 2 'not five positive numbers' "$parallax" bench attention --shapes 1,2,3
refuses 2 '3 key/value heads do not divide 4' "$parallax" bench attention --shapes 1,4,3,64,16
refuses 2 'gives the shapes' "$parallax" bench attention --grid 216 --shapes 1,4,4,64,64
refuses 2 '--page: is for --pass decode, but the pass is both' "$parallax" bench attention --page 16
refuses 2 '--deterministic: is for --pass backward' "$parallax" bench attention --pass decode --deterministic
refuses 1 'cannot be (read|opened)|No such file' "$parallax" bench attention --peer absent.jsonl
small=(--shapes 1,2,1,64,16 --seconds 0.01)
"$parallax" bench attention "${small[@]}" --peer none --json lines >/dev/null
[ "$(grep -c '"mechanism"' lines)" -eq 8 ] || fail "bench attention does not print a line a case"
keys='what mechanism kernel b hq hkv l d dtype causal cold page lengths tokens cache deterministic us tflops tb_s limit_pct err commit '
grep '"mechanism"' lines | while read -r line; do
    [ "$(grep -o '"[a-z_]*":' <<<"$line" | tr -d '":' | tr '\n' ' ')" = "$keys" ] || fail "not the keys of a line: $line"
done
echo '{"what": "train", "layout": "bthd", "b": 1, "hq": 2, "hkv": 1, "l": 64, "d": 16, "causal": true, "cudnn_fwd_ms": 9}' >peer.jsonl
"$parallax" bench attention "${small[@]}" --peer peer.jsonl --pass forward >table
[ "$(grep -c 'x cuDNN' table)" -eq 2 ] || fail "the causal forwards alone have a peer: $(cat table)"
echo '{"what": "decode", "layout": "bthd", "b": "one"}' >peer.jsonl
refuses 1 'peer.jsonl:1: "b" is not' "$parallax" bench attention "${small[@]}" --peer peer.jsonl
"$parallax" bench attention "${small[@]}" --pass decode --plan >plan
grep -q 'workspace' plan || fail "no plan"
"$parallax" bench attention "${small[@]}" --pass decode --peer none --page 16 --json - | grep '"mechanism"' >lines
[ "$(grep -c '"page": 16, "lengths": true' lines)" -eq 2 ] || fail "not two paged lines: $(cat lines)"
sed 's/.*"err": \([^,]*\),.*/\1/' lines | awk '$1 > 1e-5 { exit 1 }' || fail "paged decode is not exact: $(cat lines)"
"$parallax" bench attention "${small[@]}" --pass decode --peer none --lengths --json - | grep '"mechanism"' >lines
[ "$(grep -c '"page": 0, "lengths": true' lines)" -eq 2 ] || fail "not two lines with lengths: $(cat lines)"
sed 's/.*"err": \([^,]*\),.*/\1/' lines | awk '$1 > 1e-5 { exit 1 }' || fail "decode with lengths is not exact: $(cat lines)"
"$parallax" bench attention "${small[@]}" --pass decode --peer none --tokens 5 --cache f8e4m3 --json - | grep '"mechanism"' >lines
[ "$(grep -c '"tokens": 5, "cache": "f8e4m3"' lines)" -eq 2 ] || fail "not two lines of five tokens: $(cat lines)"
sed 's/.*"err": \([^,]*\),.*/\1/' lines | awk '$1 > 1e-5 { exit 1 }' || fail "decode of five tokens is not exact: $(cat lines)"
refuses 2 '65 queries a sequence are more than its 64 keys' "$parallax" bench attention "${small[@]}" --pass decode --tokens 65
[ "$("$parallax" bench attention --grid 216 --list-shapes | sort -u | wc -l)" -eq 207 ] || fail "not the grid's 207 shapes"
if grep -q '^gpu  *none: .*no CUDA' info; then
    refuses 2 'this build has no CUDA' "$parallax" bench attention --device cuda
elif grep -q '^gpu  *none' info; then
    refuses 1 'no GPU' "$parallax" bench attention --device cuda
fi
"$parallax" bench step --hidden-size 32 --layers 1 --heads 1 --kv-heads 1 --context 32 --batch 2 --repeat 1 --json |
    grep -c '"bench":"step"' | grep -qx 2 || fail "bench step does not print itself and its peer"
code=0
"$parallax" info >/dev/full 2>err || code=$?
[ "$code" -eq 1 ] && grep -q 'No space left' err || fail "a full standard output goes unnoticed"
code=0
"$parallax" >out 2>err || code=$?
[ "$code" -eq 2 ] && grep -q '^usage' err || fail "no command is not a usage error"
