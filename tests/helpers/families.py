"""Tiny random models of every family, built from the real transformers classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from pruning.adapters import adapter_for
from pruning.artifacts.plan import Plan
from pruning.artifacts.recipe import Recipe
from pruning.data import Windows, calibration_windows
from pruning.models.loading.loaded import LoadedModel
from tests.helpers import ROOT
from tests.helpers.tiny_configs import BLOCKS, CONFIGS, POSITIONS, VOCABULARY

SAMPLE = ROOT / "assets" / "sample" / "train.txt"


def llama_grouped(**changes: Any) -> nn.Module:
    """Six query heads on two key/value heads; heads wider than hidden size / heads."""
    settings = {
        "hidden_size": 48,
        "intermediate_size": 37,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    return LlamaForCausalLM(LlamaConfig(**{**settings, **changes}))


def llama_biased() -> nn.Module:
    """Multi-head attention, biases everywhere, tied embeddings."""
    return llama_grouped(
        hidden_size=40,
        intermediate_size=33,
        num_attention_heads=4,
        num_key_value_heads=4,
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=True,
    )


def gpt2() -> nn.Module:
    """Fused Conv1D attention, an FFN width that is no multiple of the hidden size."""
    return GPT2LMHeadModel(
        GPT2Config(
            n_embd=40,
            n_head=5,
            n_layer=BLOCKS,
            n_inner=51,
            vocab_size=VOCABULARY,
            n_positions=POSITIONS,
            bos_token_id=0,
            eos_token_id=1,
        )
    )


def from_settings(name: str) -> nn.Module:
    """The model of one entry of ``tiny_configs.CONFIGS``."""
    kind, settings = CONFIGS[name]
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings))


FAMILIES: Mapping[str, Callable[[], nn.Module]] = {
    "llama_grouped": llama_grouped,
    "llama_biased": llama_biased,
    "gpt2": gpt2,
}
"""Three layouts on which the engine is tested in depth."""

EVERY_FAMILY: Mapping[str, Callable[[], nn.Module]] = {
    **FAMILIES,
    **{name: partial(from_settings, name) for name in CONFIGS},
}
"""Every family and variant, for what each adapter must satisfy."""

PLAIN = {"recovery__method": "none", "recovery__rescore": False}

_PEAKED = ("q_proj", "k_proj", "c_attn", "query_key_value", "qkv_proj")


def randomise(model: nn.Module, seed: int) -> None:
    """Weights whose attention patterns are far from uniform and whose biases matter."""
    plus_one = "Gemma" in type(model).__name__  # its norms multiply by 1 + weight
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                scale = 0.3
                norm = ("norm" in name or "ln_" in name) and "bias" not in name
                base = 1.0 if norm and not plus_one else 0.0
                parameter.copy_(base + scale * noise)
            elif "embed" in name or "wte" in name or "wpe" in name:
                parameter.copy_(0.7 * noise)
            else:
                peaked = any(part in name for part in _PEAKED)
                parameter.copy_((2.0 if peaked else 1.0) * noise / parameter.shape[-1] ** 0.5)


def build(family: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    model = EVERY_FAMILY[family]()
    randomise(model, seed)
    for parameter in model.parameters():  # not buffers: rotary frequencies stay float32
        parameter.data = parameter.data.to(dtype)
    return model.eval().requires_grad_(False)


def wrap(model: nn.Module, name: str) -> LoadedModel:
    """A loaded model without a tokenizer."""
    adapter = adapter_for(model.config)
    return LoadedModel(adapter.prepared(model), None, adapter, name, None, f"tiny:{name}")


def loaded(family: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> LoadedModel:
    return wrap(build(family, seed, dtype), f"{family}-{seed}-{dtype}")


def recipe(**changes: Any) -> Recipe:
    """A recipe on random tokens; ``section__field=value`` changes one field."""
    data: dict[str, Any] = {
        "calibration": {"source": "random", "samples": 12, "seq_len": 16},
        # the wider scope runs more of the engine than the default does; no rewritten
        # copies, which would only make it slower; whatever a recovery gives is kept
        "recovery": {"scope": "all", "copies": 0, "keep_better": False},
    }
    for key, value in changes.items():
        section, _, field = key.partition("__")
        if field:
            data.setdefault(section, {})[field] = value
        else:
            data[section] = value
    return Recipe.parse(data)


def windows(model: LoadedModel, samples: int = 12, seq_len: int = 16, seed: int = 0) -> Windows:
    return calibration_windows("random", model.model, None, samples, seq_len, seed)


def token_ids(samples: int = 3, seq_len: int = 20, seed: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, VOCABULARY, (samples, seq_len), generator=generator)


@torch.no_grad()
def plain(folder: Any, like: nn.Module) -> nn.Module:
    """What transformers alone makes of a folder, attending as ``like`` does: for Gemma 2 older
    ones choose a kernel that leaves out its soft cap."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config._attn_implementation = like.config._attn_implementation
    return model


def logits(model: nn.Module, ids: Tensor, **kwargs: Any) -> Tensor:
    return model(input_ids=ids, use_cache=False, **kwargs).logits


def matrix(layer: nn.Module) -> Tensor:
    """Weight [out, in] of a Linear or a Conv1D, float64."""
    weight = layer.weight.double()
    return weight.T if type(layer).__name__ == "Conv1D" else weight


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def unchanged(model: nn.Module, before: Mapping[str, Tensor]) -> bool:
    now = model.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[k], before[k]) for k in before)


@contextmanager
def masked(model: LoadedModel, plan: Plan):
    """Zero what the removed units hand to out_proj, in the dense model, for a while. Of experts the
    columns of out_proj are zeroed, which comes to the same."""
    handles, restored = [], []
    for block, decision in zip(model.adapter.blocks(model.model), plan.blocks, strict=True):
        for kind in ("attention", "ffn"):
            module, gone = model.adapter.module(block, kind), decision.module(kind).removed
            width = module.unit_width
            if module.mixture:
                down, size = module.mixture.module.down_proj, module.units // module.experts
                restored.append((down, down.data.clone()))
                for unit in gone:
                    down.data[unit // size, :, unit % size] = 0.0
                continue
            columns = [unit * width + place for unit in gone for place in range(width)]
            handles.append(module.out_proj.register_forward_pre_hook(_zero(columns)))
    try:
        yield model.model
    finally:
        for handle in handles:
            handle.remove()
        for parameter, before in restored:
            parameter.data.copy_(before)


def _zero(columns: list[int]):
    def hook(_layer: nn.Module, inputs: tuple) -> tuple:
        silent = inputs[0].clone()
        silent[..., columns] = 0.0
        return (silent,)

    return hook


@contextmanager
def seen(layers: Mapping[str, nn.Module]):
    """Collects ``{name: (input, output)}`` of the given layers during full forward passes."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def recorder(name: str):
        def hook(_layer, args, kwargs, output):
            first = args[0] if args else kwargs["hidden_states"]
            if len(args) > 1 and isinstance(args[1], Tensor):  # experts: which token goes where
                found[name] = args
                return
            found[name] = (first.clone(), output[0] if isinstance(output, tuple) else output)

        return hook

    handles = [
        layer.register_forward_hook(recorder(name), with_kwargs=True)
        for name, layer in layers.items()
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
