"""Parallax attention in a decoder of the Qwen-3 family, for Hugging Face transformers.

Written into model folders of type qwen3_parallax, so that AutoModelForCausalLM.from_pretrained(FOLDER,
trust_remote_code=True) loads them. It states what the model computes and is meant to be read: attention holds the
whole matrix of scores, and generation recomputes the text for every token instead of keeping a cache.
"""
import math

import torch
from torch import nn
from torch.nn import functional
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


class Qwen3ParallaxConfig(PretrainedConfig):
    model_type = "qwen3_parallax"

    def __init__(self, mixer_types=None, qk_norm=True, qk_norm_eps=1e-6, qkv_bias=False, probe_norm=True,
                 probe_rope=True, probe_gate=False, layer_types=None, layer_windows=None, sliding_window=None,
                 rope_theta=1e4, rope_parameters=None, **others):
        self.mixer_types, self.qk_norm, self.qk_norm_eps, self.qkv_bias = mixer_types, qk_norm, qk_norm_eps, qkv_bias
        self.probe_norm, self.probe_rope, self.probe_gate = probe_norm, probe_rope, probe_gate
        self.layer_types, self.layer_windows, self.sliding_window = layer_types, layer_windows, sliding_window
        self.rope_theta = rope_theta
        self.rope_parameters = dict(rope_parameters or {"rope_theta": rope_theta, "rope_type": "default"})
        others["use_cache"] = False
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                     "num_key_value_heads", "head_dim", "rms_norm_eps", "initializer_range",
                     "max_position_embeddings"):
            if name in others:
                setattr(self, name, others.pop(name))
        super().__init__(**others)

    def window(self, layer):
        """Keys that a token of the layer sees, its own included; None: all before it."""
        if self.layer_windows is not None:
            return self.layer_windows[layer] or None
        slides = self.layer_types is not None and self.layer_types[layer] == "sliding_attention"
        return self.sliding_window if slides else None


def rope_frequencies(config, device):
    """Radians a position of each pair of channels; rope_type llama3 stretches the slow ones."""
    rope = config.rope_parameters
    pairs = torch.arange(0, config.head_dim, 2, dtype=torch.float64, device=device)
    frequency = rope.get("rope_theta", config.rope_theta) ** (-pairs / config.head_dim)
    if rope.get("rope_type", "default") == "default":
        return frequency
    turns = rope["original_max_position_embeddings"] * frequency / (2 * math.pi)
    share = (turns - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
    share = share.clamp(0, 1)
    return frequency * (share + (1 - share) / rope["factor"])


def rotate(x, cos, sin):
    """Channel i of x [B, heads, T, D] turns with channel i + D/2."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class Attention(nn.Module):
    """o = sum_j p_j (1 + t - u_j) v_j with p = softmax(q.k / sqrt(D)), u_j = r.k_j and t = sum_j p_j u_j.

    Without a probe r, u and t are 0, and this is softmax attention."""

    def __init__(self, config, layer):
        super().__init__()
        width, heads, keys, channels = (config.hidden_size, config.num_attention_heads, config.num_key_value_heads,
                                        config.head_dim)
        bias = config.qkv_bias
        self.config, self.window = config, config.window(layer)
        self.has_probe = config.mixer_types[layer] == "parallax"
        self.q_proj = nn.Linear(width, heads * channels, bias=bias)
        self.k_proj = nn.Linear(width, keys * channels, bias=bias)
        self.v_proj = nn.Linear(width, keys * channels, bias=bias)
        self.o_proj = nn.Linear(heads * channels, width, bias=False)
        if config.qk_norm:
            self.q_norm = RMSNorm(channels, config.qk_norm_eps)
            self.k_norm = RMSNorm(channels, config.qk_norm_eps)
        if self.has_probe:
            self.r_proj = nn.Linear(width, heads * channels, bias=bias)
            if config.probe_norm:
                self.r_norm = RMSNorm(channels, config.qk_norm_eps)
            if config.probe_gate:
                self.r_gate = nn.Linear(width, heads, bias=False)

    def heads(self, x, name, cos_sin):
        y = getattr(self, name + "_proj")(x)
        y = y.view(*x.shape[:2], -1, self.config.head_dim)
        if hasattr(self, name + "_norm"):
            y = getattr(self, name + "_norm")(y)
        if hasattr(self, name + "_gate"):
            y = y * torch.sigmoid(getattr(self, name + "_gate")(x)).unsqueeze(-1)
        y = y.transpose(1, 2)
        return y if cos_sin is None else rotate(y, *cos_sin)

    def forward(self, x, cos_sin, mask):
        group = self.config.num_attention_heads // self.config.num_key_value_heads
        q = self.heads(x, "q", cos_sin)
        k = self.heads(x, "k", cos_sin).repeat_interleave(group, 1)
        v = self.heads(x, "v", None).repeat_interleave(group, 1)
        if self.window is not None:
            mask = mask.triu(1 - self.window)
        scores = (q @ k.mT).float() / math.sqrt(self.config.head_dim)
        p = torch.softmax(scores.masked_fill(~mask, float("-inf")), -1).nan_to_num(0)
        if self.has_probe:
            r = self.heads(x, "r", cos_sin if self.config.probe_rope else None)
            u = (r @ k.mT).float()
            p = p * (1 + (p * u).sum(-1, keepdim=True) - u)
        o = p.to(v.dtype) @ v
        return self.o_proj(o.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x, cos_sin, mask):
        x = x + self.self_attn(self.input_layernorm(x), cos_sin, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, ids, attention_mask):
        """attention_mask [B, T]: 0 where padding is; positions count what is not padding."""
        batch, time = ids.shape
        if attention_mask is None:
            attention_mask = torch.ones(batch, time, device=ids.device)
        seen = attention_mask.bool()
        mask = torch.ones(time, time, dtype=torch.bool, device=ids.device).tril() & seen[:, None, None, :]
        x = self.embed_tokens(ids)
        angles = (seen.cumsum(-1) - 1).clamp(min=0)[:, None, :, None] * rope_frequencies(self.config, ids.device)
        cos_sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for layer in self.layers:
            x = layer(x, cos_sin, mask)
        return self.norm(x)


class Qwen3ParallaxForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = Qwen3ParallaxConfig
    base_model_prefix = "model"
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def set_input_embeddings(self, embeddings):
        self.model.embed_tokens = embeddings

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, head):
        self.lm_head = head

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **others):
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def forward(self, input_ids, attention_mask=None, labels=None, **others):
        logits = self.lm_head(self.model(input_ids, attention_mask))
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutput(loss=loss, logits=logits)
