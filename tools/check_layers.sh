#!/bin/sh
# check_layers.sh SOURCE_FOLDER: the rules about who may include whom, and how long a file may be.
#
#   cli -> nn -> include/parallax <- lib; a mechanism folder of lib never includes another one; nothing in
#   nn or cli includes a header of lib. common lies below lib and nn and includes nothing of theirs. No source
#   file is longer than 900 lines.
set -eu
cd "$1"
bad=0

# forbid FOLDER HEADERS WHY: HEADERS is an extended regular expression of what an include may not name.
forbid()
{
    [ -d "$1" ] || return 0
    if grep -rnE "^[[:space:]]*#[[:space:]]*include[[:space:]]*\"($2)" --include='*.[ch]' --include='*.cu' --include='*.cuh' "$1"; then
        echo "check_layers: $1 $3" >&2
        bad=1
    fi
}

# headers FOLDER: the names by which its headers are included, as one regular expression.
headers()
{
    (cd "$1" && find . -name '*.h' -o -name '*.cuh') | sed 's|^\./||' | paste -sd'|' -
}

lib_headers=$(headers lib)
nn_headers=$(headers nn)
forbid nn "$lib_headers" "may include only the public header of the library"
forbid cli "$lib_headers" "may include only the public header of the library"
forbid lib "$nn_headers" "may not include the layer above it"
forbid common "$lib_headers|$nn_headers" "may not include what lies above it"
[ -d cli ] && forbid nn "$(headers cli | sed 's/^$/cli\//')" "may not include the program above it"
forbid lib/core 'attention/|parallax/[^p]|parallax/parallax_|softmax/' "may not include a mechanism"
forbid lib/attention 'parallax/parallax_|softmax/' "may not include a mechanism"
forbid lib/parallax 'softmax/' "may not include another mechanism"
forbid lib/softmax 'parallax/parallax_' "may not include another mechanism"

for file in $(find include common lib nn cli tests tools \
    \( -name "*.[ch]" -o -name "*.cu" -o -name "*.cuh" -o -name "*.sh" \) 2>/dev/null); do
    lines=$(wc -l <"$file")
    if [ "$lines" -gt 900 ]; then
        echo "check_layers: $file has $lines lines, more than 900" >&2
        bad=1
    fi
done
lines=$(wc -l <include/parallax/parallax.h)
if [ "$lines" -gt 450 ]; then
    echo "check_layers: the public header has $lines lines, more than 450" >&2
    bad=1
fi
exit $bad
