# A checkpoint far larger than memory may be converts in less than 4 GiB of it, proof included; and how fast.
# usage: convert_large.sh PROGRAM [holes|copies] [LAYERS] [GB]
#
# The source has the shapes of Qwen3-32B with fewer layers, one file a layer. Embedding, first layer, last norm and head
# are random numbers. With "holes" every other layer is a sparse file that reads as zeros, and the source is f32, which
# goes to bf16, so that 76 GB are read but only 49 GB of disk are needed; with "copies" every other layer holds the
# numbers of the first on blocks of its own, bf16 stays bf16, and cp of the same files runs just before.
# Skipped where less than GB (10^9 bytes) of disk are free.
source "$(dirname "$0")/common.sh"
mode=${2:-holes} layers=${3:-36} gigabytes=${4:-60}
free=$(($(stat -f --format='%a * %S' .)))
if [ "$free" -lt $((gigabytes * 1000000000)) ]; then
    echo "skipped: $((free / 1000000000)) GB of disk are free in ${TMPDIR:-/tmp}, and $gigabytes are asked for"
    exit 77
fi

config() {
    echo '{"model_type": "qwen3", "hidden_size": 5120, "intermediate_size": 25600, "num_attention_heads": 64,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960,
        "rms_norm_eps": 1e-6, "rope_theta": 1000000, "tie_word_embeddings": false, "num_hidden_layers": '"$1}"
}

# What is real: a model of one layer. As f32 it still holds numbers of bf16, so that the way back changes none.
mkdir source
config 1 >one.json
must "$parallax" init one.json one --dtype bf16 --shard-size 0
if [ "$mode" = holes ]; then
    must "$parallax" convert one wide --dtype f32 --shard-size 0
    rm -r one
    mv wide one
fi
mv one/model.safetensors source/base.safetensors
config "$layers" >source/config.json

# The header says where the first layer's tensors are; those of the others are the same under another name.
base=source/base.safetensors
length=$(od -An -tu8 -N8 "$base" | tr -d ' ')
header=$(head -c $((8 + length)) "$base" | tail -c "$length")
first_layer=$(grep -o '"model\.layers\.0\.[^}]*}' <<<"$header")
begin=$(sed -n '1s/.*offsets":\[\([0-9]*\),.*/\1/p' <<<"$first_layer")
end=$(sed -n '$s/.*offsets":\[[0-9]*,\([0-9]*\)\].*/\1/p' <<<"$first_layer")

# layer_header LAYER: length and JSON of a file that holds this layer alone.
layer_header() {
    local json bytes digit
    json=$(sed "s/layers\.0\./layers.$1./; s/\[\([0-9]*\),\([0-9]*\)\]}/ \1 \2/" <<<"$first_layer" |
        awk -v begin="$begin" '{ offsets = sprintf("[%.0f,%.0f]}", $(NF - 1) - begin, $NF - begin)
            sub(/ [0-9]+ [0-9]+$/, ""); printf "%s%s%s", (NR > 1 ? "," : "{"), $0, offsets } END { print "}" }')
    printf -v bytes '%016x' ${#json}
    for ((digit = 14; digit >= 0; digit -= 2)); do printf "\\x${bytes:digit:2}"; done
    printf '%s' "$json"
}

for ((layer = 1; layer < layers; layer++)); do
    file=source/layer-$layer.safetensors
    layer_header "$layer" >"$file"
    if [ "$mode" = holes ]; then
        truncate -s +$((end - begin)) "$file"
    else
        dd if="$base" iflag=skip_bytes,count_bytes,fullblock bs=4M skip=$((8 + length + begin)) count=$((end - begin)) \
            status=none >>"$file"
    fi
done
{
    echo '{"weight_map": {'
    grep -o '"[^"]*":{"dtype"' <<<"$header" | sed 's/:{"dtype"/: "base.safetensors",/'
    for ((layer = 1; layer < layers; layer++)); do
        sed "s/:.*/: \"layer-$layer.safetensors\",/; s/layers\.0\./layers.$layer./" <<<"$first_layer"
    done
} | sed '$s/,$/}}/' >source/model.safetensors.index.json

# seconds_since START. rate BYTES SECONDS: in GB/s.
seconds_since() { awk -v start="$1" -v now="$(date +%s.%N)" 'BEGIN { printf "%.1f", now - start }'; }
rate() { awk -v bytes="$1" -v seconds="$2" 'BEGIN { printf "%.2f GB/s", bytes / seconds / 1e9 }'; }

# What is in the page cache of the source goes, so that it is read from the disk.
forget() {
    sync source/*
    for file in source/*.safetensors; do dd if="$file" iflag=nocache count=0 status=none; done
}

total=$(stat --format=%s source/*.safetensors | awk '{ sum += $1 } END { printf "%.0f", sum }')
if [ "$mode" = copies ]; then
    forget
    start=$(date +%s.%N)
    cp -r source copy
    sync copy/* copy
    seconds=$(seconds_since "$start")
    echo "cp and sync: $total bytes in $seconds s, $(rate "$total" "$seconds") in and the same out"
    rm -r copy
fi

forget
start=$(date +%s.%N)
"$parallax" convert source target --attention parallax --dtype bf16 >out &
peak=0
while kill -0 $! 2>/dev/null; do
    now=$(sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\) kB/\1/p' /proc/$!/status 2>/dev/null) || true
    peak=${now:-$peak}
    sleep 0.2
done
wait $! || fail "convert: exit code $?"
seconds=$(seconds_since "$start")
cat out
written=$(stat --format=%s target/*.safetensors | awk '{ sum += $1 } END { printf "%.0f", sum }')
echo "converted and proven: $total bytes to $written in $seconds s, $(rate "$total" "$seconds") of the source;" \
    "peak memory $peak kB"
grep -q '^proof: the logits of a prompt of 24 tokens equal the source.s bit for bit' out || fail "no proof"
[ "$peak" -gt 0 ] && [ "$peak" -lt 4194304 ] || fail "$peak kB of memory"
