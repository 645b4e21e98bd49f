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
"$parallax" --version | grep -q '^parallax [0-9]' || fail "no version"
"$parallax" info | grep -q 'reference' || fail "info names no kernel"
refuses 2 'nearest is "train"' "$parallax" trian
refuses 2 'nearest is "bench step"' "$parallax" bench stop
refuses 2 'nearest is --hidden-size' "$parallax" train --hiden-size 3
refuses 2 'words are missing' "$parallax" sample
refuses 2 'one word too many' "$parallax" train text
refuses 2 'not five positive numbers' "$parallax" bench attention --shape 1,2,3
refuses 2 '3 key/value heads do not divide 4' "$parallax" bench attention --shape 1,4,3,64,16
"$parallax" bench attention --shape 1,2,1,64,16 --seconds 0.01 --json | grep -c '"what": "attention_' | grep -qx 8 ||
    fail "bench attention does not print a line a case"
"$parallax" bench step --hidden-size 32 --layers 1 --heads 1 --kv-heads 1 --context 32 --batch 2 --repeat 1 --json |
    grep -c '"bench":"step"' | grep -qx 2 || fail "bench step does not print itself and its peer"
code=0
"$parallax" info >/dev/full 2>err || code=$?
[ "$code" -eq 1 ] && grep -q 'No space left' err || fail "a full standard output goes unnoticed"
code=0
"$parallax" >out 2>err || code=$?
[ "$code" -eq 2 ] && grep -q '^usage' err || fail "no command is not a usage error"
