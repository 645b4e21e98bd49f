# What convert writes, loaded by Hugging Face transformers: logits, loss, every gradient and greedy tokens agree with
# ours. Needs a Python (PLX_PYTHON, default python3) with torch, transformers and safetensors; skips without.
# usage: transformers.sh PROGRAM SOURCE_FOLDER
source "$(dirname "$0")/common.sh"
source_folder=$2
python=${PLX_PYTHON:-python3}
if ! "$python" -c 'import torch, transformers, safetensors' 2>/dev/null; then
    echo "skipped: $python has no torch, transformers and safetensors"
    exit 77
fi
models=$source_folder/tests/golden/models
export HF_HUB_OFFLINE=1 HF_MODULES_CACHE=$work/modules

# agrees FOLDER: transformers records what it computes on the folder, and parity compares.
agrees() {
    must "$python" "$source_folder/tools/make_golden.py" record "$1" "$1.safetensors"
    "$parallax" parity "$1" "$1.safetensors" --quiet --tolerance 1e-5 || fail "$1: transformers computes something else"
}

# Plain models as their own type.
for model in qwen2 llama mistral; do
    must "$parallax" convert "$models/${model}_tiny" "$model"
    grep -q "\"model_type\": \"$model\"" "$model/config.json" || fail "$model is written as another type"
    agrees "$model"
done

# Probes of every start, in our layout with its modeling file; and without them again.
must "$parallax" convert qwen2 gain --attention parallax --probe zero-gain
must "$parallax" convert llama weight --attention parallax --probe zero-weight --to qwen3_parallax --shard-size 0.00001
must "$parallax" convert mistral copy --attention parallax --probe copy-q --dtype bf16
must "$parallax" convert copy back --attention softmax --drop-probe --dtype f32
for model in gain weight copy back; do agrees "$model"; done

# Every option of the layout at once.
cat >all.json <<'JSON'
{"model_type": "qwen3_parallax", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
 "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
 "initializer_range": 0.3, "rms_norm_eps": 1e-6, "qk_norm_eps": 1e-5, "qkv_bias": true, "qk_norm": false,
 "probe_norm": true, "probe_rope": false, "probe_gate": true, "mixer_types": ["parallax", "softmax", "parallax"],
 "layer_windows": [0, 5, 9], "rope_theta": 500, "tie_word_embeddings": false, "eos_token_id": [2, 3],
 "rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
                  "original_max_position_embeddings": 32}}
JSON
must "$parallax" init all.json start
must "$parallax" convert start all
agrees all
