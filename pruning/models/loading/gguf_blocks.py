"""GGUF files in which every block has widths of its own: llama.cpp's graph ``deci``.

That graph is Llama's. Headroom writes such files, and the readers of transformers know one width
for all blocks; so the tensors are read here, and the widths kept as in a compact folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from pruning.adapters import adapter_for
from pruning.adapters.projection import set_layer
from pruning.models.compact.config_key import KEY, Record, counted, plain_config, to_config
from pruning.models.compact.layout import layout
from pruning.models.compact.load import pruned_skeleton, skeleton
from pruning.models.loading.checks import check_names, check_shape
from pruning.models.loading.gguf_config import applied
from pruning.models.loading.gguf_header import FACTORS, Header
from pruning.utils.errors import SourceError, Unsupported

OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
INSIDE = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Paths of Llama's layers, and llama.cpp's names for them."""

ROTATED = ("attn_q", "attn_k")
_HEADS, _GROUPS, _CHANNELS = (
    "attention.head_count",
    "attention.head_count_kv",
    "feed_forward_length",
)


def config_of_blocks(source: Path, header: Header) -> Any:
    """Llama's config, with the widths of the blocks under our key where they differ.

    Raises Unsupported for a block that has no attention or no FFN, and for whatever else the
    header says that cannot be applied; SourceError when header and tensors contradict each other.
    """
    from transformers import LlamaConfig

    said, tensors = header.settings, header.tensors
    counts = {name: _per_block(source, said, name) for name in (_HEADS, _GROUPS, _CHANNELS)}
    heads = _whole_share(said["embedding_length"], max(counts[_HEADS]))
    config = LlamaConfig(
        vocab_size=int(tensors["token_embd.weight"].shape[-1]),
        hidden_size=said["embedding_length"],
        intermediate_size=max(counts[_CHANNELS]),
        num_hidden_layers=said["block_count"],
        num_attention_heads=heads,
        num_key_value_heads=_whole_share(heads, max(counts[_GROUPS])),
        head_dim=said["attention.key_length"],
        max_position_embeddings=said["context_length"],
        tie_word_embeddings="output.weight" not in tensors,
        attention_bias="blk.0.attn_q.bias" in tensors,
        mlp_bias="blk.0.ffn_up.bias" in tensors,
        **{f"{kind}_token_id": _token(header, kind) for kind in ("bos", "eos")},
    )
    rest = {name: value for name, value in said.items() if name not in counts}
    applied(source, replace(header, settings=rest), config)
    return _with_widths(source, config, header, counts)


def _per_block(source: Path, said: dict[str, Any], name: str) -> list[int]:
    value, blocks = said[name], said["block_count"]
    counts = value if isinstance(value, list) else [value] * blocks
    if len(counts) != blocks:
        raise SourceError(
            f"{source} says {name} for {len(counts)} blocks and has {blocks}; make it again."
        )
    if not all(isinstance(count, int) and count > 0 for count in counts):
        raise Unsupported(
            f"{source} has blocks without attention or FFN ({name} is 0), which Headroom does not "
            "know; use the safetensors model that it was made from."
        )
    return counts


def _whole_share(whole: int, least: int) -> int:
    """The smallest number from ``least`` that divides ``whole``: what Llama's config asks of its
    head counts, which only fill in what the widths of the blocks say better."""
    return next((count for count in range(least, whole) if whole % count == 0), whole)


def _token(header: Header, kind: str) -> int | None:
    field = header.readers[0].fields.get(f"tokenizer.ggml.{kind}_token_id")
    return None if field is None else int(field.contents())


def _with_widths(source: Path, config: Any, header: Header, counts: dict[str, list[int]]) -> Any:
    """``config`` with the shapes of the file's matrices under our key."""
    model, dense = (skeleton(config, torch.float32) for _ in range(2))
    shapes = {_path(name): tensor.shape for name, tensor in header.tensors.items()}
    for path, layer in model.model.layers.named_modules(prefix="model.layers"):
        shape = shapes.get(f"{path}.weight")
        if isinstance(layer, nn.Linear) and shape is not None:
            columns, rows = map(int, shape)  # GGUF counts dimensions from the innermost
            bias = _meta(rows) if f"{path}.bias" in shapes else None
            set_layer(layer, _meta(rows, columns), bias)
    adapter = adapter_for(config)
    for index, block in enumerate(adapter.blocks(model)):
        attention, ffn = adapter.attention(block), adapter.ffn(block)
        wanted = tuple(counts[name][index] for name in (_HEADS, _GROUPS, _CHANNELS))
        if (attention.units, attention.groups, ffn.units) != wanted:
            raise SourceError(
                f"{source} says {wanted} heads, key/value heads and channels of block {index}, "
                "and its tensors have other shapes; make it again."
            )
        adapter.set_widths(block, attention.units, attention.groups)
    found = layout(model, dense)
    if found.layers or found.attributes:
        record = Record(type(model).__name__, counted(model, dense, adapter), found)
        setattr(config, KEY, to_config(record))
    return config


def _meta(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def model_of_blocks(source: Path, header: Header) -> Any:
    """The model in float32. Raises what :func:`config_of_blocks` raises, and SourceError for a
    tensor that is missing, has no place or another shape."""
    config = config_of_blocks(source, header)
    if getattr(config, KEY, None):
        model: Any = pruned_skeleton(config, torch.float32, str(source))
    else:
        model = skeleton(plain_config(config), torch.float32)
    wanted = dict(model.named_parameters())
    names = {_path(name) for name in header.tensors if name != FACTORS}
    check_names(str(source), model, wanted.keys() - names, names - wanted.keys())
    weights = dict(_weights(header, config.head_dim))
    for name in weights.keys() & wanted.keys():
        check_shape(str(source), name, weights[name].shape, wanted[name].shape)
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    return model


def tokenizer_of_blocks(header: Header) -> Any:
    """The tokenizer; None for a file without one. transformers chooses how to read it by the
    architecture, so the keys are shown to it as Llama's."""
    import gguf
    from transformers import AutoTokenizer

    kind = header.readers[0].fields.get("tokenizer.ggml.model")
    if kind is None or kind.contents() == "none":
        return None
    with TemporaryDirectory() as folder:
        writer = gguf.GGUFWriter(Path(folder, "keys.gguf"), "llama")
        header.copy_keys(writer, lambda name: name.startswith("tokenizer."))
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        finally:
            writer.close()
        return AutoTokenizer.from_pretrained(folder, gguf_file="keys.gguf", trust_remote_code=False)


def _weights(header: Header, width: int) -> Iterator[tuple[str, Tensor]]:
    """Llama's names and the dequantised weights."""
    from gguf import dequantize

    for name, stored in header.tensors.items():
        if name == FACTORS:
            continue
        weight = torch.from_numpy(dequantize(stored.data, stored.tensor_type).copy())
        if name.split(".")[-2] in ROTATED:
            weight = side_by_side(weight, width)
        yield _path(name), weight


def _path(name: str) -> str:
    """Where a tensor belongs in Llama; a name that it does not know stays as it is."""
    outside = {target: path for path, target in OUTSIDE.items()}
    inside = {target: path for path, target in INSIDE.items()}
    match name.split("."):
        case [target, last] if target in outside:
            return f"{outside[target]}.{last}"
        case ["blk", index, target, last] if target in inside:
            return f"model.layers.{index}.{inside[target]}.{last}"
    return name


def interleaved(tensor: Tensor, width: int) -> Tensor:
    """Rows [heads·width, ...] with the two halves of each head, which transformers rotates
    against each other, made neighbours, which llama.cpp does."""
    split = tensor.reshape(-1, 2, width // 2, *tensor.shape[1:])
    return split.transpose(1, 2).reshape(tensor.shape).contiguous()


def side_by_side(tensor: Tensor, width: int) -> Tensor:
    """What :func:`interleaved` was given."""
    split = tensor.reshape(-1, width // 2, 2, *tensor.shape[1:])
    return split.transpose(1, 2).reshape(tensor.shape).contiguous()
