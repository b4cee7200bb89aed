"""The keys that readers older than transformers 5 look for, beside those that it writes itself.

Without it they load the model with default positions, which is silently wrong, or do not find the
tokenizer's class. Servers and converters often lag behind transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_OLD_TOKENIZER, _NEW_TOKENIZER = "PreTrainedTokenizerFast", "TokenizersBackend"


def add_legacy_keys(place: Path) -> None:
    """Complete the config files in ``place``; transformers 5 reads them as before."""
    _change(place / "config.json", _positions)
    _change(place / "tokenizer_config.json", _tokenizer)


def _positions(config: dict[str, Any]) -> dict[str, Any]:
    """The old names of the rotary settings; none where layers differ in them."""
    rope = config.get("rope_parameters") or {}
    if "rope_theta" not in rope:
        return config
    scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
    old = {"rope_theta": rope["rope_theta"]}
    if "partial_rotary_factor" in scaling:
        old["partial_rotary_factor"] = scaling.pop("partial_rotary_factor")
    if scaling.get("rope_type", "default") != "default":
        old["rope_scaling"] = scaling
    return old | config


def _tokenizer(config: dict[str, Any]) -> dict[str, Any]:
    if config.get("tokenizer_class") == _NEW_TOKENIZER:
        return config | {"tokenizer_class": _OLD_TOKENIZER}
    return config


def _change(path: Path, change: Any) -> None:
    if path.is_file():
        config = json.loads(path.read_text(encoding="utf-8"))
        text = json.dumps(change(config), indent=2, sort_keys=True, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
