"""Quantised checkpoints, made ordinary weights of.

As with GGUF the result is kept as a folder, so that every placement reads the same: in the dtype of
the config, which is what transformers makes of such a checkpoint. What is quantised otherwise than
in one of the ``formats`` is refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pruning.models.loading.checks import check_finite, check_names, check_shape, settle_ties
from pruning.models.loading.config import SETTINGS, raw_config, read_config
from pruning.models.loading.content import content_key
from pruning.models.loading.files import headers, weight_files
from pruning.models.loading.formats import FORMATS, Checkpoint
from pruning.models.loading.tokenizer import load_tokenizer
from pruning.utils.atomic_dir import written_aside
from pruning.utils.digest import sha256_of
from pruning.utils.errors import SourceError, one_line
from pruning.utils.files import cache_root
from pruning.utils.memory import is_out_of_memory

_READER = 1
"""Counted up when files are read otherwise than before."""


def dequantised(source: str, place: str, commit: str | None) -> str:
    """The folder of ordinary weights of a quantised checkpoint in ``place`` (a folder or hub id),
    made on first use and known by the content of its files.

    Raises SourceError when the files do not fit their config, Unsupported when something else would
    be made of them.
    """
    files = weight_files(place, commit)
    folder = Path(files[0]).parent
    parts = [folder / "config.json", *map(Path, files)]
    settings = raw_config(folder / "config.json")[SETTINGS]
    key = sha256_of([f"{part.name} {content_key(part)}".encode() for part in parts], 16)
    name = f"{Path(place).name}-{key}-{settings['quant_method']}-{_READER}"
    target = cache_root() / "models" / name
    if not (target / "config.json").is_file() or not any(target.glob("*.safetensors")):
        config = read_config(source, place, commit)
        checkpoint = Checkpoint(source, place, commit, config, settings, headers(files))
        tokenizer = load_tokenizer(place, commit)
        with written_aside(target) as made:
            _read(checkpoint).save_pretrained(made)
            if tokenizer is not None:
                tokenizer.save_pretrained(made)
    return str(target)


def _read(checkpoint: Checkpoint) -> Any:
    source, method = checkpoint.source, checkpoint.settings["quant_method"]
    try:
        model, loading = FORMATS[method].read(checkpoint)
    except (ValueError, TypeError, AttributeError, KeyError, ImportError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise SourceError(
            f"{source} is quantised ({method}) and cannot be dequantised: {one_line(error, 120)}; "
            "name the model that it was made from."
        ) from None
    for name, stored, wanted in sorted(loading["mismatched_keys"]):
        check_shape(source, name, stored, wanted)
    check_names(source, model, loading["missing_keys"], loading["unexpected_keys"])
    for name, parameter in model.named_parameters():
        check_finite(source, name, parameter)
    settle_ties(model)
    # what was done to the weights would be undone on saving: transformers 5.17 quantises them again
    model._weight_conversions = None
    return model
