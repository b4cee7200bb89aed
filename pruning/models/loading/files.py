"""The safetensors files of a model: which they are, what their headers say, what may be in them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from pruning.models.compact.load import INDEX, SINGLE
from pruning.utils.errors import SourceError, Unsupported, one_line

COMPUTED = re.compile(
    r"rotary\w*\.(inv_freq|cos_cached|sin_cached)$|(^|\.)position_ids$|(^|\.)embed_positions$"
    r"|(^|\.)(attn|attention)\.(bias|masked_bias)$"
)
"""Buffers that older releases of transformers stored and models make themselves."""

_EXPERT = re.compile(r"(?P<block>.*\.experts\.)(?P<number>\d+)(?P<part>\..*)")

_FULL = {"F64", "F32", "F16", "BF16", "I64"}  # I64: numbers of kept heads


@dataclass(frozen=True)
class Stored:
    """Where a tensor is, and what the header of its ``file`` says of it."""

    file: str
    dtype: str
    shape: tuple[int, ...]


def weight_files(place: str, commit: str | None) -> list[str]:
    """Paths for a folder or hub id, downloaded when they are not here; one file goes before an
    index of several, as in transformers. Raises SourceError."""
    from transformers.utils.hub import cached_file, get_checkpoint_shard_files

    absent = {"_raise_exceptions_for_missing_entries": False}
    single = cached_file(place, SINGLE, revision=commit, **absent)
    if single is not None:
        return [single]
    index = cached_file(place, INDEX, revision=commit, **absent)
    if index is None:
        raise SourceError(
            f"{place} has no safetensors weights ({SINGLE} or {INDEX}); save the model again with "
            "safetensors."
        )
    try:
        files = get_checkpoint_shard_files(place, index, revision=commit)[0]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SourceError(f"{index} is damaged; save or copy the model again.") from None
    folder = Path(index).parent
    for file in files:
        if not Path(os.path.normpath(file)).is_relative_to(os.path.normpath(folder)):
            raise SourceError(f"{index} names a file outside its folder; save the model again.")
    return files


def headers(files: list[str]) -> dict[str, Stored]:
    """What every tensor of ``files`` is; raises SourceError for a missing or damaged file."""
    return {name: stored for file in files for name, stored in _header(file).items()}


def _header(file: str) -> dict[str, Stored]:
    try:
        with safe_open(file, framework="pt") as opened:
            parts = {name: opened.get_slice(name) for name in opened.keys()}
            return {
                name: Stored(file, part.get_dtype(), tuple(part.get_shape()))
                for name, part in parts.items()
            }
    except FileNotFoundError:
        raise SourceError(f"{file} is missing; save or copy the model again.") from None
    except (SafetensorError, OSError) as error:
        raise SourceError(
            f"{file} is damaged ({one_line(error, 80)}); save or copy it again."
        ) from None


def stored_dtype(known: Mapping[str, Stored]) -> str:
    """The narrowest dtype that holds every weight as it is in the files: bfloat16 or float16 where
    all are in that, else float32."""
    names = {stored.dtype for name, stored in known.items() if not COMPUTED.search(name)}
    return {"BF16": "bfloat16", "F16": "float16"}.get("".join(names - {"I64"}), "float32")


def check_experts(source: str, known: Iterable[str]) -> None:
    """Raise SourceError for the first of the ``known`` weights that one expert lacks and others
    have: transformers puts the experts of a block together before it looks at names."""
    found: dict[str, set[tuple[int, str]]] = {}
    for match in filter(None, map(_EXPERT.fullmatch, known)):
        found.setdefault(match["block"], set()).add((int(match["number"]), match["part"]))
    wanted = set().union(*found.values())
    for block, there in found.items():
        for number, part in sorted(wanted - there):
            raise SourceError(
                f"{source} lacks weight {f'{block}{number}{part}'!r}; download or save the model "
                "again."
            )


def check_full_precision(source: str, known: Mapping[str, Stored]) -> None:
    """Raise Unsupported for a weight that is stored in the numbers of some quantisation."""
    for name, stored in known.items():
        if stored.dtype not in _FULL and not COMPUTED.search(name):
            raise Unsupported(
                f"{source} stores {name!r} as {stored.dtype}, so it is quantised; name the model "
                "that it was made from, in float32, bfloat16 or float16."
            )
