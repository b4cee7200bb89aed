"""GGUF files: dequantised once into a safetensors folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pruning.models.loading.checks import check_finite, check_names, check_shape, settle_ties
from pruning.models.loading.content import content_key
from pruning.models.loading.gguf_config import applied
from pruning.models.loading.gguf_header import Header, read_header
from pruning.utils.atomic_dir import written_aside
from pruning.utils.digest import sha256_of
from pruning.utils.errors import HeadroomError, SourceError, Unsupported, one_line
from pruning.utils.files import cache_root
from pruning.utils.memory import is_out_of_memory

_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf")
_READER = 2
"""Counted up when files are read otherwise than before, so that nothing read before is used."""

_KEPT = {"F32": "float32", "F64": "float32", "BF16": "bfloat16"}
"""Types of GGUF that are no float16, and hold none."""


def converted(source: Path) -> Path:
    """The safetensors folder of a ``.gguf`` file (any part of a split one), made on first use and
    known by the content of all parts.

    Raises SourceError when the file is not a readable GGUF or a part is missing, Unsupported when
    something in it would not be computed with.
    """
    parts, target = _conversion(source)
    if not _is_whole(target):
        convert(parts, target)
    return target


def is_converted(source: Path) -> bool:
    """Whether :func:`converted` would find its work done; raises what that raises."""
    return _is_whole(_conversion(source)[1])


def _conversion(source: Path) -> tuple[list[Path], Path]:
    """All parts of a file and the folder that they are converted to."""
    parts = parts_of(source)
    for part in parts:
        check_magic(part)
    key = sha256_of([content_key(part).encode() for part in parts], 16)
    return parts, cache_root() / "models" / f"{parts[0].stem}-{key}-{_READER}"


def _is_whole(target: Path) -> bool:
    return (target / "config.json").is_file() and any(target.glob("*.safetensors"))


def parts_of(source: Path) -> list[Path]:
    """All parts of a split file, in order; raises SourceError that names the first one missing."""
    match = _PART.fullmatch(source.name)
    if match is None:
        return [source]
    count = int(match["parts"])
    names = (f"{match['stem']}-{n:05}-of-{count:05}.gguf" for n in range(1, count + 1))
    parts = []
    for name in names:
        part = source.with_name(name)
        if not part.is_file():
            raise SourceError(f"{part} is missing; put all {count} parts into one folder.")
        parts.append(part)
    return parts


def check_magic(source: Path) -> None:
    """Raise SourceError when the file does not begin as a GGUF file does."""
    try:
        with open(source, "rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise SourceError(f"{source} cannot be read: {error.strerror or error}.") from None
    if magic != b"GGUF":
        raise SourceError(f"{source} is not a GGUF file; check the path.")


def convert(parts: list[Path], target: Path) -> None:
    """Dequantise ``parts`` to safetensors in ``target``, whole or not at all. What is pruned later
    is saved in the dtype of these (:func:`saved_dtype`), so they are rounded to it here, before
    anything is computed with them."""
    source = parts[0]
    header = _reading(source, read_header, parts)
    with written_aside(target, stays=lambda: _is_whole(target)) as folder:
        if header.is_blockwise:
            model, tokenizer = _read_blocks(source, header)
        else:
            model, tokenizer = _read_parts(source, folder / "whole.gguf", header)
        _check_and_settle(source, model)
        _round(model, saved_dtype(header))
        model.save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)


def described(source: Path) -> tuple[Any, str]:
    """The config of a file and :func:`saved_dtype`, from its header alone; raises what
    :func:`converted` raises for it."""
    first = parts_of(source)[0]
    check_magic(first)
    header = _reading(source, read_header, parts_of(source))
    return _config(source, first, header), saved_dtype(header)


def saved_dtype(header: Header) -> str:
    """The dtype of the most weights: norms and routers are in float32 in every file, whatever they
    were in the model that it was made from.

    Quantised weights are float16 scales times small integers: products of 2^-24, which float16
    holds to 2^-12 of their value (exactly below 2^-14), bfloat16 to 2^-9 only.
    """
    weights: Counter[str] = Counter()
    for tensor in header.tensors.values():
        weights[_KEPT.get(tensor.tensor_type.name, "float16")] += int(tensor.n_elements)
    return max(weights, key=weights.__getitem__, default="float32")


def _round(model: Any, name: str) -> None:
    """Round the parameters to a dtype, unless it does not reach as far as one of them."""
    import torch

    dtype = getattr(torch, name)
    largest = max(parameter.abs().max() for parameter in model.parameters())
    if largest <= torch.finfo(dtype).max:
        for parameter in model.parameters():  # a tied one stays tied
            parameter.data = parameter.data.to(dtype)


def _config(source: Path, file: Path, header: Header) -> Any:
    """What the header says; ``file``: the whole file, or the first of its parts."""
    if header.is_blockwise:
        from pruning.models.loading.gguf_blocks import config_of_blocks

        return _reading(source, config_of_blocks, source, header)
    from transformers import AutoConfig

    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    read = partial(AutoConfig.from_pretrained, trust_remote_code=False)
    return applied(source, header, _reading(source, partial(read, **where)))


def _read_blocks(source: Path, header: Header) -> tuple[Any, Any]:
    from pruning.models.loading.gguf_blocks import model_of_blocks, tokenizer_of_blocks

    model = _reading(source, model_of_blocks, source, header)
    return model, _reading(source, tokenizer_of_blocks, header)


def _read_parts(source: Path, whole: Path, header: Header) -> tuple[Any, Any]:
    """The model and tokenizer; several parts are first joined in the file ``whole``, which goes
    again."""
    if len(header.readers) == 1:
        return _read(source, source, header)
    _reading(source, header.write_whole, whole)
    found = _read(source, whole, header)
    whole.unlink()
    return found


def _read(source: Path, whole: Path, header: Header) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from pruning.models.compact.load import skeleton

    where = {"pretrained_model_name_or_path": str(whole.parent), "gguf_file": whole.name}
    config = _config(source, whole, header)
    tokenizer = _reading(
        source, lambda: AutoTokenizer.from_pretrained(**where, trust_remote_code=False)
    )
    model, loading = _reading(
        source,
        lambda: AutoModelForCausalLM.from_pretrained(
            **where,
            config=config,
            trust_remote_code=False,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        ),
    )
    for name, stored, wanted in sorted(loading["mismatched_keys"]):
        check_shape(str(source), name, stored, wanted)
    for name, wanted in skeleton(config, torch.float32).named_parameters():  # 5.17 tells of none
        check_shape(str(source), name, model.get_parameter(name).shape, wanted.shape)
    unexpected = {*loading["unexpected_keys"], *_reading(source, header.without_place, model)}
    check_names(str(source), model, loading["missing_keys"], unexpected)
    # transformers refuses to save a model that still says it is quantised
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model, tokenizer


def _check_and_settle(source: Path, model: Any) -> None:
    for name, parameter in model.named_parameters():
        check_finite(str(source), name, parameter)
    model.config._name_or_path = source.stem
    settle_ties(model)


def _reading(source: Path, call: Callable[..., Any], *args: Any) -> Any:
    """Call a reader; raises Unsupported or SourceError in one sentence that names the file."""
    try:
        return call(*args)
    except HeadroomError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError from None  # the file is none the worse
        raise _refusal(source, error) from None


def _refusal(source: Path, error: Exception) -> HeadroomError:
    if isinstance(error, ValueError):
        return Unsupported(
            f"{source} holds a model that cannot be read here: {one_line(error, 120)}; use the "
            "safetensors model that it was made from."
        )
    return SourceError(
        f"{source} is not a readable GGUF file: {one_line(error, 120)}; download or make it again."
    )
