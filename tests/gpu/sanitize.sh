#!/usr/bin/env bash
# NVIDIA's compute-sanitizer over the parts of the GPU tests that are made for it: under memcheck every kernel of
# the library, every operation and a few training steps, under racecheck every kernel of the library and the
# operations that have shared memory. Parts run side by side; a table says what each found. Anything found, a
# test that fails and a part that does not end are errors.
#
# usage: tests/gpu/sanitize.sh FOLDER [LOGS]
#   FOLDER  a build with CUDA, or a folder made by tools/pack_for_gpu.sh
#   LOGS    a folder for what the parts print
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
folder=$(realpath "$1") limit=600
sanitizer=$(PATH=$PATH:/usr/local/cuda/bin command -v compute-sanitizer) ||
    { echo "skipped: no compute-sanitizer"; exit 77; }
logs=${2:-$(mktemp -d "${TMPDIR:-/tmp}/parallax-sanitize.XXXXXX")}
mkdir -p "$logs"
[ $# -ge 2 ] || trap 'rm -rf "$logs"' EXIT

# Operations whose kernels have shared memory. Quantising is left out, because its test multiplies by cuBLAS in fp8,
# where racecheck reports kernels that are not ours, and a filter of kernels breaks them (nn/ops/cuda/NOTES.md).
shared=norm,rope,bias,embed,cross_entropy,argmax,sum,clip,project/int8

# program TEST ARGUMENT...: what starts it becomes `command`.
program() {
    if [ -x "$folder/parallax.sh" ]; then
        command=("$folder/parallax.sh" --run "$@")
    else
        command=("$folder/tests/$1" "${@:2}")
    fi
}

# Whether there is a GPU and what it needs, from the test that ends first.
program test_gpu_cache
code=0
"${command[@]}" >"$logs/plain.log" 2>&1 || code=$?
[ "$code" -ne 77 ] || { echo "skipped: no GPU, or a build without CUDA"; exit 77; }
[ "$code" -eq 0 ] || { echo "sanitize.sh: exit code $code from: ${command[*]}: $(tail -n 1 "$logs/plain.log")" >&2; exit 1; }

# run TOOL PART TEST [ARGUMENT...]: one part.
run() {
    local log=$logs/$1-$2.log start=$SECONDS code=0
    program "${@:3}"
    timeout -k 10 "$limit" "$sanitizer" --tool "$1" "${command[@]}" >"$log" 2>&1 || code=$?
    echo "exit code $code after $((SECONDS - start)) s" >>"$log"
}

parts=()
# part TOOL PART TEST [ARGUMENT...]: begins it.
part() {
    parts+=("$1-$2")
    run "$@" &
}

part memcheck attention test_gpu_conformance --sanitize
part memcheck cache test_gpu_cache
part memcheck operations test_gpu_ops --sanitize
part memcheck steps test_gpu_step --sanitize
part racecheck decode test_gpu_conformance --sanitize --only /decode/
part racecheck forward test_gpu_conformance --sanitize --only /forward/
part racecheck backward test_gpu_conformance --sanitize --only /backward/
part racecheck cache test_gpu_cache
part racecheck operations test_gpu_ops --sanitize --only "$shared"
wait

# row PART: its line of the table; false where something is wrong.
row() {
    local log=$logs/$1.log found cases code seconds
    found=$(sed -n 's/^=* *\(ERROR\|RACECHECK\) SUMMARY: \([0-9]*\) .*/\2/p' "$log" | tail -n 1)
    cases=$(sed -n 's/^\([0-9]*\) cases, .*/\1/p' "$log")
    [ -n "$cases" ] || cases=$(grep -c '^\[       OK \]' "$log") || true
    read -r code seconds < <(sed -n 's/^exit code \([0-9]*\) after \([0-9]*\) s$/\1 \2/p' "$log")
    printf '%-10s %-11s %6d %7s %9d %7d s\n' "${1%%-*}" "${1#*-}" "$cases" "${found:-none}" "$code" "$seconds"
    [ "$found" = 0 ] && [ "$code" -eq 0 ] && [ "$cases" -gt 0 ]
}

"$sanitizer" --version | tail -n 1
printf '%-10s %-11s %6s %7s %9s %9s\n' tool part cases found 'exit code' time
failed=()
for name in "${parts[@]}"; do row "$name" || failed+=("$name"); done
for name in "${failed[@]}"; do
    echo "--- $name"
    grep -m 12 -A 3 -E '^=* *(Error|Warning|Invalid|Race|Internal|Program hit)|^FAILED|^\[  FAILED' "$logs/$name.log" || true
done
[ ${#failed[@]} -eq 0 ]
