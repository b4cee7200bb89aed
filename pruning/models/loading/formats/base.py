"""What a format of quantised checkpoints is, and what all of them read with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pruning.models.loading.files import Stored, check_experts
from pruning.utils.errors import Unsupported

FULL = ("F32", "F16", "BF16")
"""Dtypes of what is not quantised, and of scales."""


@dataclass(frozen=True)
class Checkpoint:
    """A quantised checkpoint in ``place`` (a folder or hub id): its ``config`` as that of ordinary
    weights, ``settings`` of the quantisation, and ``known``, every tensor of its files."""

    source: str
    place: str
    commit: str | None
    config: Any
    settings: Mapping[str, Any]
    known: Mapping[str, Stored]

    @property
    def dtype(self) -> Any:
        """The torch dtype of the ordinary weights: the config's; it may also say float8."""
        import torch

        exact = self.config.dtype in (torch.float32, torch.float16)
        return self.config.dtype if exact else torch.bfloat16

    def tensor(self, name: str) -> Any:
        """A tensor of the files as it is stored."""
        from safetensors import safe_open

        with safe_open(self.known[name].file, framework="pt") as opened:
            return opened.get_tensor(name)

    def odd(self, what: str) -> Unsupported:
        """The refusal of what this format does not say, or says otherwise."""
        method = str(self.settings.get("quant_method"))[:60]
        return Unsupported(
            f"{self.source} is quantised ({method}), and {what}; name the model that it was made "
            "from, in float32, bfloat16 or float16."
        )

    def odd_tensor(self, name: str, what: str) -> Unsupported:
        """The refusal of one tensor."""
        return self.odd(f"{name[-80:]!r} {what}")


@dataclass(frozen=True)
class Format:
    """``read`` gives the model of a checkpoint and what transformers says of the loading; it raises
    Unsupported for what would be computed otherwise than the format means. ``package``: the library
    that owns the format, from release ``at_least`` on; None: transformers alone."""

    read: Callable[[Checkpoint], tuple[Any, dict[str, Any]]]
    package: str | None = None
    at_least: str = ""

    def wanted(self) -> str | None:
        """What has to be installed first, as pip takes it."""
        if self.package is None:
            return None
        try:
            there = _release(version(self.package)) >= _release(self.at_least)
        except PackageNotFoundError:
            there = False
        return None if there else f"{self.package}>={self.at_least}"


def _release(text: str) -> tuple[int, ...]:
    """The numbers of a release, without what may follow them."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def from_weights(checkpoint: Checkpoint, weights: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model of ordinary ``weights`` under the names of the files, and what transformers says of
    the loading; raises SourceError for an expert that lacks one."""
    from pruning.models.compact.load import skeleton, take_generation_config

    check_experts(checkpoint.source, weights)
    kind: Any = type(skeleton(checkpoint.config, checkpoint.dtype))
    model, loading = kind.from_pretrained(
        None,
        config=checkpoint.config,
        state_dict=weights,
        trust_remote_code=False,
        dtype=checkpoint.dtype,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    take_generation_config(model, checkpoint.place, checkpoint.commit)
    return model, loading
