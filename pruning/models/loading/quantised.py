"""Quantised checkpoints that transformers itself dequantises, without a library of the format.

It does so for block-wise FP8 (DeepSeek, Qwen3-FP8). As with GGUF the result is kept as a folder of
ordinary weights, so that every placement reads the same: in the dtype of the config, which is what
transformers makes of such a checkpoint. All other methods are refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruning.models.loading.checks import check_finite, check_names, check_shape, settle_ties
from pruning.models.loading.config import DEQUANTISED, SETTINGS, raw_config, read_config
from pruning.models.loading.content import content_key
from pruning.models.loading.files import COMPUTED, Stored, headers, weight_files
from pruning.models.loading.tokenizer import load_tokenizer
from pruning.utils.atomic_dir import written_aside
from pruning.utils.digest import sha256_of
from pruning.utils.errors import SourceError, Unsupported, one_line
from pruning.utils.files import cache_root

SCALE = "_scale_inv"
_READER = 1
"""Counted up when files are read otherwise than before."""


def dequantised(source: str, place: str, commit: str | None) -> str:
    """The folder of ordinary weights of an FP8 checkpoint in ``place`` (a folder or hub id), made
    on first use and known by the content of its files.

    Raises SourceError when the files do not fit their config, Unsupported when transformers would
    make something else of them.
    """
    files = weight_files(place, commit)
    folder = Path(files[0]).parent
    parts = [folder / "config.json", *map(Path, files)]
    key = sha256_of([f"{part.name} {content_key(part)}".encode() for part in parts], 16)
    target = cache_root() / "models" / f"{Path(place).name}-{key}-{DEQUANTISED}-{_READER}"
    if not (target / "config.json").is_file() or not any(target.glob("*.safetensors")):
        settings = raw_config(folder / "config.json")[SETTINGS]
        _check(source, headers(files), settings)
        tokenizer = load_tokenizer(place, commit)
        with written_aside(target) as made:
            _read(source, place, commit, settings).save_pretrained(made)
            if tokenizer is not None:
                tokenizer.save_pretrained(made)
    return str(target)


def _check(source: str, known: Mapping[str, Stored], settings: Mapping[str, Any]) -> None:
    """Every FP8 weight has scales, one for each block of the config's size: transformers takes a
    weight without scales as it is, and the size of blocks from the number of scales."""
    block = settings.get("weight_block_size", (128, 128))
    for name, stored in known.items():
        if name.endswith(SCALE) or COMPUTED.search(name):
            continue
        if stored.dtype in ("F32", "F16", "BF16"):
            if f"{name}{SCALE}" in known:
                raise _odd(source, name, "has scales but is not in FP8")
            continue
        if stored.dtype != "F8_E4M3":
            raise _odd(source, name, f"is stored as {stored.dtype}")
        scale = known.get(f"{name}{SCALE}")
        if scale is None or scale.dtype not in ("F32", "F16", "BF16"):
            raise _odd(source, name, "has no scales that can be read")
        if block and len(stored.shape) == 2 and len(block) == 2:
            sizes = zip(stored.shape, block, strict=True)
            if any(size % of for size, of in sizes) or scale.shape != tuple(
                size // of for size, of in zip(stored.shape, block, strict=True)
            ):
                raise _odd(source, name, f"is not in whole blocks of {block[0]} x {block[1]}")
        elif block or math.prod(scale.shape) != 1:
            raise _odd(source, name, "has scales of another shape than its config says")


def _odd(source: str, name: str, what: str) -> Unsupported:
    return Unsupported(
        f"{source} is quantised (fp8), and {name[-80:]!r} {what}; name the model that it was made "
        "from, in float32, bfloat16 or float16."
    )


def _read(source: str, place: str, commit: str | None, settings: Mapping[str, Any]) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    config = read_config(source, place, commit)
    exact = config.dtype in (torch.float32, torch.float16)  # it may also say float8
    config.quantization_config = {**settings, "dequantize": True}
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            place,
            revision=commit,
            config=config,
            dtype=config.dtype if exact else torch.bfloat16,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (ValueError, TypeError, AttributeError, KeyError, ImportError) as error:
        raise SourceError(
            f"{source} is quantised (fp8) and cannot be dequantised: {one_line(error, 120)}; name "
            "the model that it was made from."
        ) from None
    for name, stored, wanted in sorted(loading["mismatched_keys"]):
        check_shape(source, name, stored, wanted)
    check_names(source, model, loading["missing_keys"], loading["unexpected_keys"])
    for name, parameter in model.named_parameters():
        check_finite(source, name, parameter)
    settle_ties(model)
    return model
