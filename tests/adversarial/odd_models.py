"""Odd model folders and GGUF files, made from tiny models by one change each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import pruning
from pruning.checkpoint.gguf.tokenizer import write_vocabulary
from pruning.utils.errors import HeadroomError
from tests.helpers import families

VOCABULARY = 300
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
WEIGHTS = "model.safetensors"
Change = Callable[[dict[str, Tensor], dict[str, Any]], None]


def llama(**changes: Any) -> nn.Module:
    """A tiny Llama with random weights."""
    model = families.llama_grouped(vocab_size=VOCABULARY, **changes)
    families.randomise(model, 5)
    return model.eval().requires_grad_(False)


def tokenizer() -> Any:
    """Byte-level BPE of exactly :data:`VOCABULARY` tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train([str(families.SAMPLE)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


def changed(folder: Path, change: Change, model: nn.Module | None = None) -> Path:
    """A saved model with the weights and config that ``change`` leaves."""
    (llama() if model is None else model).save_pretrained(folder)
    weights = load_file(folder / WEIGHTS)
    config = json.loads((folder / "config.json").read_text())
    change(weights, config)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def plain_logits(folder: Path) -> Tensor:
    """What plain transformers computes."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return families.logits(model.eval(), ids())


def ids() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, VOCABULARY, (2, 24), generator=generator)


def write_gguf(
    path: Path,
    model: nn.Module,
    settings: dict[str, Any] | None = None,
    drop: str | None = None,
    extra: dict[str, Tensor] | None = None,
    parts: int = 1,
    architecture: str = "llama",
    types: Callable[[str, Tensor], str] = lambda _name, _tensor: "F32",
) -> Path:
    """``model`` as llama.cpp's converter writes it; ``settings``: further keys behind the
    architecture; ``drop``: a tensor left out; with ``parts`` several files, the first returned;
    ``types``: what each tensor is stored as."""
    import gguf

    config = model.config
    names = gguf.get_tensor_name_map(
        gguf.MODEL_ARCH[architecture.upper()], config.num_hidden_layers
    )
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, last = name.rpartition(".")
        target = f"{names.get_name(stem)}.{last}"
        if architecture == "gemma2" and "norm" in name:
            tensor = tensor + 1
        if architecture == "llama" and (".attn_q." in target or ".attn_k." in target):
            # halves of a head become neighbours
            half = config.head_dim // 2
            split = tensor.reshape(-1, 2, half, *tensor.shape[1:])
            tensor = split.transpose(1, 2).reshape(tensor.shape)
        if target != drop:
            tensors[target] = tensor
    tensors |= extra or {}
    values = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": float(config.rope_parameters["rope_theta"]),
        "vocab_size": config.vocab_size,
        **(settings or {}),
    }
    add = {bool: "add_bool", int: "add_uint32", float: "add_float32", str: "add_string"}
    shares = [dict(list(tensors.items())[n::parts]) for n in range(parts)]
    files = [path]
    if parts > 1:
        files = [
            path.with_name(f"{path.stem}-{n:05}-of-{parts:05}.gguf") for n in range(1, parts + 1)
        ]
    for number, (file, share) in enumerate(zip(files, shares, strict=True)):
        writer = gguf.GGUFWriter(file, architecture)
        if number == 0:
            for name, value in values.items():
                getattr(writer, add[type(value)])(f"{architecture}.{name}", value)
            write_vocabulary(writer, tokenizer(), VOCABULARY)
            if architecture.startswith("gemma"):  # the reader of transformers 5.17 asks for them
                writer.add_token_scores([0.0] * VOCABULARY)
        if parts > 1:
            writer.add_uint16("split.no", number)
            writer.add_uint16("split.count", parts)
            writer.add_int32("split.tensors.count", len(tensors))
        for name, tensor in share.items():
            kind = gguf.GGMLQuantizationType[types(name, tensor)]
            data = gguf.quantize(tensor.float().contiguous().numpy(), kind)
            writer.add_tensor(name, data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return files[0]


def refusal(file: Path) -> str:
    """The one sentence by which a file is refused."""
    with pytest.raises(HeadroomError) as caught:
        pruning.load(str(file), device="cpu")
    message = str(caught.value)
    assert "\n" not in message and len(message.replace(str(file.parent), "")) <= 300, message
    return message
