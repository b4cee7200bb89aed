"""Find a model by what the user typed and load it."""

from __future__ import annotations

from typing import Any

from pruning.adapters import adapter_for
from pruning.models.compact.config_key import KEY
from pruning.models.compact.load import load_compact
from pruning.models.loading.checks import (
    check_finite,
    check_names,
    check_shape,
    check_tokenizer,
    settle_ties,
)
from pruning.models.loading.config import read_config
from pruning.models.loading.files import (
    check_experts,
    check_full_precision,
    headers,
    stored_dtype,
    weight_files,
)
from pruning.models.loading.from_disk import device_map, load_on_disk, placed
from pruning.models.loading.guarded import guarded
from pruning.models.loading.loaded import LoadedModel
from pruning.models.loading.memory_estimate import chosen_placement, of_config
from pruning.models.loading.memory_needs import PLACEMENTS
from pruning.models.loading.resolve import (
    compute_devices,
    identity,
    locate,
    memory_dtype,
    resolve_device,
)
from pruning.models.loading.sizes import Task
from pruning.models.loading.tokenizer import load_tokenizer
from pruning.utils.memory import memory_guard
from pruning.utils.registry import unknown_name


def load(
    source: str,
    *,
    revision: str | None = None,
    dtype: str | None = "auto",
    device: str = "auto",
    placement: str = "auto",
    task: Task | None = None,
) -> LoadedModel:
    """Load ``demo``, a hub id, a folder (dense or saved by Headroom) or a ``.gguf`` file.

    ``dtype``: what the weights are in memory and saved in later, ``auto`` as transformers takes it
    from the files (float32 from GGUF); None: float32 in memory, and saved in the narrowest of
    float32, bfloat16 and float16 that holds all of the files' weights as they are, of GGUF most of
    them.
    ``placement``: one of PLACEMENTS, or ``auto``: the quickest that ``task`` (None: a small prune
    if that is possible, else an evaluation) fits into memory with. Safetensors only; no code of
    the model's authors is run. Raises UsageError for a wrong request, SourceError when the model
    cannot be had, Unsupported for another family, OutOfMemory when it does not fit.
    """
    import torch

    place, commit = locate(source, revision)
    kind = resolve_device(device)
    in_memory = memory_dtype(dtype, source)
    if placement not in ("auto", *PLACEMENTS):
        raise unknown_name("placement", placement, ("auto", *PLACEMENTS))
    config = read_config(source, place, commit)
    adapter = adapter_for(config)
    wanted = "auto" if in_memory == "auto" else getattr(torch, in_memory)
    devices = compute_devices(kind)
    needs = of_config(config, place, in_memory, kind, task or Task(), len(devices))
    placement = chosen_placement(needs, placement, task)
    with memory_guard(
        f"{source} does not fit into the memory of {kind}; choose bfloat16, another device "
        "or a smaller model."
    ):
        if placement == "disk":
            model = guarded(source, load_on_disk, place, commit, config, adapter, wanted, devices)
        else:
            where = device_map(config, adapter, devices, placement)
            model = _load_weights(source, place, commit, config, wanted, where)
            model = placed(model, adapter, devices, placement)
        settle_ties(model)
        model = adapter.prepared(model).eval().requires_grad_(False)
    tokenizer = load_tokenizer(place, commit)
    check_tokenizer(source, tokenizer, model)
    file_dtype = stored_dtype(headers(weight_files(place, commit))) if dtype is None else None
    return LoadedModel(
        model, tokenizer, adapter, source, commit, identity(place, commit), placement, file_dtype
    )


def _load_weights(
    source: str, place: str, commit: str | None, config: Any, dtype: Any, where: dict[str, str]
) -> Any:
    files = guarded(source, weight_files, place, commit)
    known = guarded(source, headers, files)
    check_full_precision(source, known)
    check_experts(source, known)
    if getattr(config, KEY, None):
        model = load_compact(files, config, dtype, where)
    else:
        model = _from_pretrained(source, place, commit, config, dtype, where)
    narrowed = any(stored.dtype in ("F32", "BF16", "F64") for stored in known.values())
    for name, parameter in model.named_parameters():
        check_finite(source, name, parameter, narrowed)
    return model


def _from_pretrained(
    source: str, place: str, commit: str | None, config: Any, dtype: Any, where: dict[str, str]
) -> Any:
    from transformers import AutoModelForCausalLM

    model, loading = guarded(
        source,
        AutoModelForCausalLM.from_pretrained,
        place,
        config=config,
        revision=commit,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # only so that it names them; none is accepted
        output_loading_info=True,
        device_map=where or None,
    )
    if where:
        from accelerate.hooks import remove_hook_from_submodules

        remove_hook_from_submodules(model)  # blocks align their inputs themselves
    for name, stored, wanted in sorted(loading["mismatched_keys"]):
        check_shape(source, name, stored, wanted)
    check_names(source, model, loading["missing_keys"], loading["unexpected_keys"])
    return model
