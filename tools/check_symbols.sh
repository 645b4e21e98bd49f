#!/bin/sh
# check_symbols.sh HEADER SHARED_LIBRARY: the library exports exactly what the header declares PLX_API.
set -eu
declared=$(tr '\n' ' ' <"$1" | grep -oE 'PLX_API [^;]*;' | grep -oE 'plx_[a-z0-9_]+ ?\(' | tr -d ' (' | sort -u)
exported=$(nm -D --defined-only "$2" | awk '$2 ~ /[TDBRW]/ {print $3}' | sort -u)
if [ "$declared" != "$exported" ]; then
    echo "check_symbols: declared (<) and exported (>) differ:" >&2
    printf '%s\n' "$declared" >/tmp/declared.$$
    printf '%s\n' "$exported" | diff /tmp/declared.$$ - >&2 || true
    rm -f /tmp/declared.$$
    exit 1
fi
echo "check_symbols: $(printf '%s\n' "$declared" | wc -l) symbols, all declared and exported"
