# Documents: every link to a file of this repository, and every result file that a text names, is there.
# usage: docs.sh PROGRAM SOURCE
source "$(dirname "$0")/common.sh"
source_folder=$2
count=0
while IFS= read -r page; do
    folder=$(dirname "$page")
    while IFS= read -r target; do
        count=$((count + 1))
        [ -e "$folder/$target" ] || fail "${page#"$source_folder"/} links to $target, which does not exist"
    done < <(grep -oE '\]\([^) ]+\)' "$page" | sed -E '/:/d; s/^\]\(//; s/\)$//; s/#.*//; /^$/d')
    while IFS= read -r target; do
        count=$((count + 1))
        [ -e "$source_folder/$target" ] || fail "${page#"$source_folder"/} names $target, which does not exist"
    done < <(grep -oE 'bench/results/[0-9A-Za-z._-]+[0-9A-Za-z]' "$page" | sort -u)
done < <(find "$source_folder" -name '*.md' -not -path '*/build*' -not -path '*/.*')
[ "$count" -ge 60 ] || fail "only $count links were found"
