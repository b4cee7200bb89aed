"""Folders in the formats that libraries dequantise, and the values of their weights by hand."""

from __future__ import annotations

import importlib
import math
from types import SimpleNamespace

import numpy as np
import torch

from tests.adversarial.odd_models import changed
from tests.helpers import families

SIZES = {"hidden_size": 48, "intermediate_size": 32, "head_dim": 8, "vocab_size": 300}
UP = "model.layers.1.mlp.up_proj"
GROUP = 16
FP4 = (0, 0.5, 1, 1.5, 2, 3, 4, 6)


def llama(dtype=torch.bfloat16):
    model = families.llama_grouped(**SIZES)
    families.randomise(model, 5)
    return model.to(dtype).eval().requires_grad_(False)


def same(loaded, truth):
    """The very numbers, in every weight."""
    state = loaded.model.state_dict()
    for name, value in truth.items():
        assert torch.equal(state[name].float(), value.float()), name


# ---- compressed-tensors, written by hand


def words(numbers, bits, down=False):
    """Numbers [rows, columns] from 0 up, in int32, the first in the lowest bits."""
    numbers = numbers.T if down else numbers
    per = 32 // bits
    made = np.zeros((numbers.shape[0], math.ceil(numbers.shape[1] / per)), dtype=np.uint32)
    for column in range(numbers.shape[1]):
        made[:, column // per] |= numbers[:, column].numpy().astype(np.uint32) << np.uint32(
            bits * (column % per)
        )
    made = torch.from_numpy(made.view(np.int32))
    return (made.T if down else made).contiguous()


def integers(value, args, packs):
    """Tensors of one matrix, and its values."""
    bits, lowest = args["num_bits"], -(2 ** (args["num_bits"] - 1))
    group = args.get("group_size") or value.shape[1]
    blocks = value.float().unflatten(1, (-1, group))
    low, high = blocks.amin(2), blocks.amax(2)
    if args["symmetric"]:
        scale, zero = blocks.abs().amax(2) / -lowest, torch.zeros_like(low)
    else:
        scale = (high - low) / (2**bits - 1)
        zero = (lowest - low / scale).round().clamp(lowest, -lowest - 1)
    scale = scale.to(value.dtype)
    steps = blocks / scale.float()[..., None] + zero[..., None]
    numbers = steps.round().clamp(lowest, -lowest - 1)
    truth = ((numbers - zero[..., None]) * scale.float()[..., None]).flatten(1).to(value.dtype)
    numbers = numbers.flatten(1)
    stored = {"weight_scale": scale}
    if packs:
        stored["weight_packed"] = words((numbers - lowest).int(), bits)
        stored["weight_shape"] = torch.tensor(value.shape)
        zero = words((zero - lowest).int(), bits, down=True)
    else:
        stored["weight"], zero = numbers.to(torch.int8), zero.to(torch.int8)
    return stored if args["symmetric"] else stored | {"weight_zero_point": zero}, truth


def floats(value, args, _packs):
    high, wide = args.get("block_structure") or value.shape
    blocks = value.float().unflatten(1, (-1, wide)).unflatten(0, (-1, high))
    scale = (blocks.abs().amax((1, 3), keepdim=True) / 448).to(value.dtype)
    numbers = (blocks / scale.float()).to(torch.float8_e4m3fn)
    truth = (numbers.float() * scale.float()).reshape(value.shape).to(value.dtype)
    scale = scale[:, 0, :, 0].contiguous()
    if args["strategy"] == "tensor":
        scale = scale.reshape(1)
    return {"weight": numbers.reshape(value.shape), "weight_scale": scale}, truth


def halves(value, _args, _packs):
    """NVFP4: a sign and one of eight numbers, two to a byte, scales in FP8."""
    whole = 448 * 6 / value.float().abs().max()
    blocks = value.float().unflatten(1, (-1, GROUP))
    scale = (blocks.abs().amax(2) / 6 * whole).to(torch.float8_e4m3fn)
    steps = blocks / (scale.float() / whole)[..., None]
    index = (steps.abs()[..., None] - torch.tensor(FP4)).abs().argmin(-1)
    numbers = torch.tensor(FP4)[index] * torch.where(steps < 0, -1, 1)
    truth = (numbers * (scale.float() / whole)[..., None]).flatten(1).bfloat16()
    codes = (index + 8 * (steps < 0)).flatten(1)
    packed = (codes[:, ::2] + 16 * codes[:, 1::2]).to(torch.uint8)
    names = ("weight_packed", "weight_scale", "weight_global_scale")
    return dict(zip(names, (packed, scale, whole.reshape(1)), strict=True)), truth


def scheme(make, form, targets=("Linear",), activations=None, **args):
    args = {"symmetric": True, "type": "int" if make is integers else "float", **args}
    return SimpleNamespace(make=make, form=form, targets=targets, args=args, inputs=activations)


TOKENS = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True}
FIXED = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False}
FOURS = scheme(integers, "pack-quantized", num_bits=4, strategy="group", group_size=GROUP)
SCHEMES = {
    "w4a16": [FOURS],
    "w4a16 asym": [
        scheme(
            integers,
            "pack-quantized",
            num_bits=4,
            strategy="group",
            group_size=GROUP,
            symmetric=False,
        )
    ],
    "w8a16 asym": [
        scheme(integers, "pack-quantized", num_bits=8, strategy="channel", symmetric=False)
    ],
    "w8a8": [scheme(integers, "int-quantized", activations=TOKENS, num_bits=8, strategy="channel")],
    "fp8": [scheme(floats, "float-quantized", activations=FIXED, num_bits=8, strategy="tensor")],
    "fp8 in blocks": [
        scheme(floats, "naive-quantized", num_bits=8, strategy="block", block_structure=[8, 16])
    ],
    "nvfp4": [
        scheme(halves, "nvfp4-pack-quantized", num_bits=4, strategy="tensor_group", group_size=16)
    ],
    # transformers' quantizer takes the first for all
    "two groups": [
        scheme(
            integers,
            "pack-quantized",
            targets=("re:.*mlp.*",),
            num_bits=4,
            strategy="group",
            group_size=GROUP,
        ),
        scheme(
            integers, "int-quantized", targets=("re:.*self_attn.*",), num_bits=8, strategy="channel"
        ),
    ],
}


def compressed(folder, schemes, dtype=torch.bfloat16, change=lambda _w, _c: None):
    """A folder, and the values of its weights."""
    truth = {}

    def quantise(weights, config):
        for name, value in list(weights.items()):
            truth[name] = value
            if "_proj" not in name:
                continue
            path = name.removesuffix(".weight")
            used = schemes[-1 if "self_attn" in path else 0]
            stored, truth[name] = used.make(value, used.args, used.form == "pack-quantized")
            del weights[name]
            weights |= {f"{path}.{part}": tensor for part, tensor in stored.items()}
            if used.inputs is FIXED:
                weights[f"{path}.input_scale"] = torch.ones(1)
        config["quantization_config"] = {
            "quant_method": "compressed-tensors",
            "format": schemes[0].form,
            "quantization_status": "compressed",
            "ignore": ["lm_head"],
            "config_groups": {
                f"group_{n}": {
                    "targets": used.targets,
                    "weights": used.args,
                    "input_activations": used.inputs,
                    "format": used.form,
                }
                for n, used in enumerate(schemes)
            },
        }
        change(weights, config)

    changed(folder, quantise, llama(dtype))
    return truth


# ---- bitsandbytes, quantised by its own functions; the rows are no whole blocks


def four_bits(weights, name, value, **how):
    functional = importlib.import_module("bitsandbytes.functional")
    packed, state = functional.quantize_4bit(value.contiguous(), **how)
    weights[name] = packed
    weights |= {f"{name}.{part}": tensor for part, tensor in state.as_dict(packed=True).items()}
    largest = state.absmax
    if state.nested:  # indices into a map themselves
        inner = state.state2
        blocks = inner.absmax.repeat_interleave(inner.blocksize)[: largest.numel()]
        largest = inner.code[largest.long()] * blocks + state.offset
    bits = packed.view(torch.uint8).flatten()
    numbers = state.code[torch.stack([bits >> 4, bits & 15], 1).flatten().long()]
    # blocks go on from row to row
    hand = numbers * largest.repeat_interleave(state.blocksize)[: numbers.numel()]
    return hand.reshape(value.shape)


def eight_bits(weights, name, value):
    scales = value.float().abs().amax(1)
    numbers = (value.float() * 127 / scales[:, None]).round().to(torch.int8)
    path = name.removesuffix("weight")
    weights |= {name: numbers, f"{path}SCB": scales}
    weights[f"{path}weight_format"] = torch.tensor(0, dtype=torch.uint8)
    return numbers.float() * scales[:, None] * 7.874015718698502e-3


BITS = {
    "nf4": {"quant_type": "nf4"},
    "nf4 nested": {"quant_type": "nf4", "compress_statistics": True, "blocksize": 32},
    "fp4": {"quant_type": "fp4", "blocksize": 128},
    "kept as bfloat16": {"quant_type": "nf4", "quant_storage": torch.bfloat16},
    "int8": None,
}


def of_bitsandbytes(folder, how, model=None, transposed=False, change=lambda _w, _c: None):
    truth = {}

    def quantise(weights, config):
        for name, value in list(weights.items()):
            truth[name] = value
            if not name.endswith(("_proj.weight", "c_proj.weight", "c_attn.weight", "c_fc.weight")):
                continue
            value = value.T.contiguous() if transposed else value
            found = eight_bits(weights, name, value)
            if how is not None:
                del weights[name.replace("weight", "SCB")]
                del weights[name.replace("weight", "weight_format")]
                found = four_bits(weights, name, value, **how)
            truth[name] = (found.T if transposed else found).bfloat16()
        config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": not how}
        change(weights, config)

    changed(folder, quantise, llama() if model is None else model)
    return truth
