#!/usr/bin/env bash
# Makes a folder that runs on another machine with a GPU and a glibc, though it has none of the libraries that
# the program needs: the program, the GPU tests, and those libraries. Nothing but a shell, tar and gzip is
# needed there.
#
# usage: tools/pack_for_gpu.sh FOLDER [BUILD]      BUILD: a build with CUDA, default build
#
#   FOLDER/parallax.sh ARGUMENT...          the program
#   FOLDER/parallax.sh --run NAME ...       the test program NAME (without arguments: lists them)
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
folder=$1 build=${2:-build}
mapfile -t tests < <(basename -s .c tests/gpu/test_*.c)
programs=("$build/parallax" "${tests[@]/#/$build/tests/}")

cmake -S . -B "$build" >/dev/null # the commit in the program's version line is that of the last configuration
cmake --build "$build" --target parallax "${tests[@]}" >/dev/null
"$build/parallax" --version | grep -q 'CUDA [0-9]' || { echo "pack_for_gpu.sh: $build has no CUDA" >&2; exit 1; }

mkdir -p "$folder/bin"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for program in "${programs[@]}"; do
    strip -o "$folder/bin/$(basename "$program")" "$program"
    # Every machine with a GPU driver has the C and C++ libraries, and newer ones serve as well.
    ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' |
        grep -vE '/(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s)\.so' |
        xargs -r cp -Lt "$scratch"
done
strip "$scratch"/*
tar -C "$scratch" -czf "$folder/libraries.tar.gz" .

cat >"$folder/parallax.sh" <<'START'
#!/bin/sh
# Starts the program, or with --run a test, with the libraries beside it; unpacks them the first time.
here=$(cd "$(dirname "$0")" && pwd)
if [ ! -d "$here/lib" ]; then
    mkdir "$here/lib.$$" && tar -C "$here/lib.$$" -xzf "$here/libraries.tar.gz" || exit 1
    mv "$here/lib.$$" "$here/lib" 2>/dev/null || rm -r "$here/lib.$$"
fi
export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
name=parallax
if [ "${1:-}" = --run ]; then
    [ $# -ge 2 ] || { ls "$here/bin"; exit 2; }
    name=$2
    shift 2
fi
exec "$here/bin/$name" "$@"
START
chmod +x "$folder/parallax.sh"
kilobytes=$(du -sk --exclude=lib "$folder" | cut -f1)
echo "$folder: $kilobytes KiB"
[ "$kilobytes" -lt 49152 ] || { echo "pack_for_gpu.sh: that is more than 48 MiB" >&2; exit 1; }
