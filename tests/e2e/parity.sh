# The parity command on models and records of public implementations. usage: parity.sh PROGRAM SHARED_FOLDER
source "$(dirname "$0")/common.sh"
shared=$2
if [ ! -d "$shared/golden" ]; then
    echo "skipped: shared data absent"
    exit 77
fi
for model in qwen3_tiny_tied parallax_tiny_qknorm_gqa; do
    folder=$shared/golden/$model
    "$parallax" parity "$folder" "$folder/io.safetensors" >out || fail "$model: $(tail -n 3 out)"
    tail -n 1 out
    grep -q 'tensors compared' out || fail "$model: no summary"
    "$parallax" info "$folder" >table
    grep -q '^parameters' table || fail "$model: info prints no parameter table"
done
# The record of one model is not another's, and a tolerance that nothing meets fails.
refuses 1 'safetensors' "$parallax" parity "$shared/golden/qwen3_tiny_tied" \
    "$shared/golden/parallax_tiny_qknorm_gqa/io.safetensors"
refuses 1 'toler|error|1e-12' "$parallax" parity "$shared/golden/qwen3_tiny_tied" \
    "$shared/golden/qwen3_tiny_tied/io.safetensors" --tolerance 1e-12
