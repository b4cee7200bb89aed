"""Find a model by what the user typed and load it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pruning.adapters import adapter_for
from pruning.models.compact.config_key import KEY
from pruning.models.compact.load import load_compact
from pruning.models.loading.from_disk import load_on_disk, placed, spread_map
from pruning.models.loading.loaded import LoadedModel
from pruning.models.loading.memory_estimate import PLACEMENTS, MemoryEstimate, of_config
from pruning.models.loading.resolve import (
    DTYPES,
    compute_devices,
    guarded,
    identity,
    locate,
    resolve_device,
)
from pruning.models.loading.sizes import EVALUATION, Task
from pruning.utils.errors import OutOfMemory, SourceError, UsageError, one_line
from pruning.utils.memory import memory_guard

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


def load(
    source: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    placement: str = "auto",
    task: Task | None = None,
) -> LoadedModel:
    """Load ``demo``, a hub id, a folder (dense or saved by Headroom) or a ``.gguf`` file.

    ``placement``: one of PLACEMENTS, or ``auto``: the quickest that ``task`` (None: a small prune
    if that is possible, else an evaluation) fits into memory with. Safetensors only; no code of
    the model's authors is run. Raises UsageError for a wrong request, SourceError when the model
    cannot be had, Unsupported for another family, OutOfMemory when it does not fit.
    """
    import torch
    from transformers import AutoConfig

    place, commit = locate(source, revision)
    kind = resolve_device(device)
    if dtype not in DTYPES:
        raise UsageError(f"Unknown dtype {dtype!r}; choose one of: {', '.join(DTYPES)}.")
    if placement not in ("auto", *PLACEMENTS):
        raise UsageError(
            f"Unknown placement {placement!r}; choose one of: auto, {', '.join(PLACEMENTS)}."
        )
    config = guarded(source, AutoConfig.from_pretrained, place, revision=commit)
    adapter = adapter_for(config)
    wanted = "auto" if dtype == "auto" else getattr(torch, dtype)
    devices = compute_devices(kind)
    needs = of_config(config, place, dtype, kind, task or Task(), len(devices))
    placement = _choose(needs, placement, task)
    with memory_guard(
        f"{source} does not fit into the memory of {kind}; choose bfloat16, another device "
        "or a smaller model."
    ):
        if placement == "disk":
            model = guarded(source, load_on_disk, place, commit, config, adapter, wanted, devices)
        else:
            spread = spread_map(config, adapter, devices) if placement == "spread" else None
            model = _load_weights(source, place, commit, config, wanted, spread)
            model = placed(model, adapter, devices, placement)
        model = adapter.prepared(model).eval().requires_grad_(False)
    return LoadedModel(
        model,
        _tokenizer(place, commit),
        adapter,
        source,
        commit,
        identity(place, commit),
        placement,
    )


def _choose(needs: MemoryEstimate, placement: str, task: Task | None) -> str:
    """The placement to load with; raises OutOfMemory with the arithmetic when none will do."""
    # a caller that does not say what it wants may only want to evaluate
    for fits in (needs, replace(needs, task=EVALUATION))[: 2 if task is None else 1]:
        if placement == "auto" and fits.placement():
            return fits.placement()
        if placement != "auto" and fits.fits_as(placement):
            return placement
    raise OutOfMemory(needs.sentence("whole" if placement == "auto" else placement))


def _load_weights(
    source: str,
    place: str,
    commit: str | None,
    config: Any,
    dtype: Any,
    device_map: dict[str, str] | None,
) -> Any:
    from transformers import AutoModelForCausalLM

    if getattr(config, KEY, None):
        return load_compact(Path(place), config, dtype)
    model, loading = guarded(
        source,
        AutoModelForCausalLM.from_pretrained,
        place,
        revision=commit,
        dtype=dtype,
        use_safetensors=True,
        output_loading_info=True,
        device_map=device_map,
    )
    if device_map is not None:
        from accelerate.hooks import remove_hook_from_submodules

        remove_hook_from_submodules(model)  # blocks align their inputs themselves
    if loading["missing_keys"]:
        name = sorted(loading["missing_keys"])[0]
        raise SourceError(f"{source} lacks weight {name!r}; download or save the model again.")
    return model


def _tokenizer(place: str, commit: str | None) -> Any:
    """The model's tokenizer, or None when there is none. Raises SourceError when the folder has one
    that cannot be read: all that is made from the model would silently lack it."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(place, revision=commit)
        # where there are no files some classes make one that knows their special tokens only
        if len(tokenizer) > len(set(tokenizer.all_special_ids)):
            return tokenizer
        reason = "its tokens are missing"
    except Exception as error:
        reason = one_line(error)
    folder = Path(place)
    if any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise SourceError(
            f"The tokenizer in {folder} cannot be read ({reason}); save or copy the model again."
        )
    return None
