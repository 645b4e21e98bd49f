# The help pages: of the program and of every command, with usage, explanation, defaults and two examples.
source "$(dirname "$0")/common.sh"
"$parallax" --help >overview
for command in train sample eval "bench attention" "bench step" info parity; do
    grep -q "^  $command " overview || fail "\"$command\" is not in the overview"
    # shellcheck disable=SC2086 # two words are two arguments
    "$parallax" $command --help >page
    "$parallax" help $command >page2
    cmp page page2 || fail "help $command differs from $command --help"
    grep -q "^usage: parallax $command" page || fail "$command: no usage"
    [ "$(sed -n '/^Examples/,$p' page | grep -c '^  parallax\|| parallax')" -eq 2 ] || fail "$command: not two examples"
    grep -q '^  --' page || fail "$command: no options"
    awk 'length > 118 { print; bad = 1 } END { exit bad }' page || fail "$command: a line is too long"
done
"$parallax" --version | grep -q '^parallax [0-9]' || fail "no version"
"$parallax" info | grep -q 'reference' || fail "info names no kernel"
refuses 2 'nearest is "train"' "$parallax" trian
refuses 2 'nearest is "bench step"' "$parallax" bench stop
refuses 2 'nearest is --hidden-size' "$parallax" train --hiden-size 3
refuses 2 'words are missing' "$parallax" sample
refuses 2 'one word too many' "$parallax" train text
code=0
"$parallax" info >/dev/full 2>err || code=$?
[ "$code" -eq 1 ] && grep -q 'No space left' err || fail "a full standard output goes unnoticed"
code=0
"$parallax" >out 2>err || code=$?
[ "$code" -eq 2 ] && grep -q '^usage' err || fail "no command is not a usage error"
