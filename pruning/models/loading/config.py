"""The config of a model, without what only says how some earlier process ran it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruning.models.loading.formats import format_of
from pruning.models.loading.guarded import guarded
from pruning.utils.errors import SourceError, Unsupported, short_repr

SETTINGS = "quantization_config"


def is_dequantised(raw: Mapping[str, Any]) -> bool:
    """Whether a model with the config ``raw`` is quantised so that it can be dequantised here."""
    form = format_of(raw.get(SETTINGS))
    return form is not None and form.wanted() is None


def raw_config(file: Path) -> dict[str, Any]:
    """What is in a ``config.json``; empty where it cannot be read, which others report."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _not_a_number(raw: Mapping[str, Any]) -> str | None:
    """The dotted name of a NaN in a config."""
    waiting: list[tuple[str, Any]] = list(raw.items())
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, float) and math.isnan(value):
            return name
        if isinstance(value, dict):
            waiting += [(f"{name}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(name, inner) for inner in value]
    return None


def read_config(source: str, place: str, commit: str | None) -> Any:
    """The config in ``place``, as that of ordinary weights where a quantised model can be
    dequantised; raises SourceError, Unsupported for one that cannot.

    The authors' attention kernel and output switches are dropped: the engine reads logits by
    name and chooses the kernel itself.
    """
    from transformers import AutoConfig, PreTrainedConfig

    raw, _ = guarded(source, PreTrainedConfig.get_config_dict, place, revision=commit)
    if (unknown := _not_a_number(raw)) is not None:
        raise SourceError(
            f"{source} says that {unknown} is not a number (NaN); mend its config.json."
        )
    for name in ("quantization_config", "compression_config"):
        if raw.get(name) and not (name == SETTINGS and is_dequantised(raw)):
            raise _quantised(source, raw[name], name)
    if (raw.get("model_type") or raw.get("auto_map")) and guarded(source, _is_foreign, raw):
        raise _foreign(source, raw)
    switches = {"output_attentions": False} if raw.get("output_attentions") else {}
    config = guarded(
        source,
        AutoConfig.from_pretrained,
        place,
        revision=commit,
        trust_remote_code=False,
        attn_implementation=None,
        **switches,
    )
    config._attn_implementation = None
    if hasattr(config, SETTINGS):
        delattr(config, SETTINGS)
    for name, value in {"return_dict": True, "output_hidden_states": False}.items():
        if getattr(config, name, value) != value:
            setattr(config, name, value)
    return config


def _is_foreign(raw: dict[str, Any]) -> bool:
    from transformers import CONFIG_MAPPING

    return raw.get("model_type") not in CONFIG_MAPPING


def _foreign(source: str, raw: Mapping[str, Any]) -> Unsupported:
    """The refusal of a model that transformers has no code for."""
    from transformers import __version__

    if raw.get("auto_map"):
        return Unsupported(
            f"{source} needs code of its authors (auto_map in its config), which is never run "
            "here; name a model of a family that transformers itself knows."
        )
    return Unsupported(
        f"{source} has the model type {short_repr(raw['model_type'], 60)}, which transformers "
        f"{__version__} does not know; install a release that does, or name another model."
    )


def _quantised(source: str, settings: Any, key: str) -> Unsupported:
    """The refusal of a format that is not read, or not without a library."""
    form = format_of(settings) if key == SETTINGS else None
    needs = f" (to read it here: pip install '{form.wanted()}')" if form else ""
    return Unsupported(
        f"{source} is quantised ({_method(settings)}); name the model that it was made from, in "
        f"float32, bfloat16 or float16{needs}."
    )


def _method(settings: Any) -> str:
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    return str(method or "of a method that its config does not name")[:60]
