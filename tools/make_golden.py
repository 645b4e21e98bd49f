#!/usr/bin/env python3
"""Records what Hugging Face transformers computes. Needs torch, transformers and safetensors; nothing else here does.

usage: make_golden.py make FOLDER                   the tiny models of tests/golden/models
       make_golden.py record MODEL OUT.safetensors  a record of any model folder, for `parallax parity MODEL OUT`

Each folder that is made is what save_pretrained writes, and io.safetensors beside it as nn/parity.h describes: one batch of
token ids, loss, logits, the gradient of every parameter, and greedy continuations. The models differ in what
Qwen-3 lacks: biases and shards (qwen2), stretched positions and f16 weights (llama), windows (mistral).
"""
import pathlib
import shutil
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM
from transformers import Qwen2Config, Qwen2ForCausalLM

ROWS, TOKENS, PROMPT, NEW = 2, 40, 12, 16
SIZES = dict(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8, max_position_embeddings=64, initializer_range=0.3,
             attn_implementation="eager")
LLAMA3 = dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)

MODELS = {
    "qwen2_tiny": (Qwen2ForCausalLM, torch.bfloat16, Qwen2Config(
        **SIZES, rope_theta=1000.0, use_sliding_window=True, sliding_window=7, max_window_layers=1,
        tie_word_embeddings=True, rms_norm_eps=1e-6, bos_token_id=1, eos_token_id=2)),
    "llama_tiny": (LlamaForCausalLM, torch.float16, LlamaConfig(
        **SIZES, rope_parameters=LLAMA3, tie_word_embeddings=False, rms_norm_eps=1e-5, bos_token_id=1,
        eos_token_id=[2, 3])),
    "mistral_tiny": (MistralForCausalLM, torch.float32, MistralConfig(
        **SIZES, rope_theta=1000.0, sliding_window=5, tie_word_embeddings=False, rms_norm_eps=1e-5,
        bos_token_id=1, eos_token_id=2)),
}


def make_model(kind, dtype, config):
    """Random weights that the storage type holds exactly; biases and gains far enough from 0 and 1 to be missed."""
    model = kind(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3)
            elif "norm" in name:
                parameter.normal_(1, 0.2)
            parameter.copy_(parameter.to(dtype).float())
    return model


def greedy(model, ids):
    for _ in range(NEW):
        ids = torch.cat([ids, model(input_ids=ids).logits[:, -1].argmax(-1, keepdim=True)], 1)
    return ids


def record(model):
    ids = torch.randint(0, model.config.vocab_size, (ROWS, TOKENS))
    output = model(input_ids=ids, labels=ids)
    output.loss.backward()
    tensors = {"input_ids": ids, "loss": output.loss.detach().reshape(1), "logits": output.logits.detach()}
    for name, parameter in model.named_parameters():
        tensors["grad." + name] = parameter.grad
    with torch.no_grad():
        tensors[f"greedy_from_{PROMPT}"] = greedy(model, ids[:, :PROMPT])
    # Copies: a model that changes its type later takes its gradients along.
    return {name: tensor.clone().contiguous() for name, tensor in tensors.items()}


def record_folder(folder, path):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32,
                                                 attn_implementation="eager").eval()
    save_file(record(model), path)


def make(target):
    for number, (name, (kind, dtype, config)) in enumerate(MODELS.items()):
        folder = pathlib.Path(target) / name
        shutil.rmtree(folder, ignore_errors=True)
        torch.manual_seed(number + 1)
        model = make_model(kind, dtype, config)
        tensors = record(model)
        model.to(dtype).save_pretrained(folder, max_shard_size="6KB" if name == "qwen2_tiny" else "1GB")
        (folder / "generation_config.json").unlink(missing_ok=True)
        save_file(tensors, folder / "io.safetensors")


if len(sys.argv) == 3 and sys.argv[1] == "make":
    make(sys.argv[2])
elif len(sys.argv) == 4 and sys.argv[1] == "record":
    record_folder(sys.argv[2], sys.argv[3])
else:
    sys.exit(__doc__)
