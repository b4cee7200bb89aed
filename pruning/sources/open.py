"""Find a model by what the user typed and load it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.adapters import adapter_for
from pruning.errors import HeadroomError, OutOfMemory, SourceError, UsageError
from pruning.sources.estimate import PLACEMENTS, MemoryEstimate, of_config
from pruning.sources.loaded import LoadedModel
from pruning.sources.placing import load_on_disk, placed, spread_map
from pruning.sources.sizes import EVALUATION, Task

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16")
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
    try:
        if placement == "disk":
            model = guarded(source, load_on_disk, place, commit, config, adapter, wanted, devices)
        else:
            spread = spread_map(config, adapter, devices) if placement == "spread" else None
            model = _load_weights(source, place, commit, config, wanted, spread)
            model = placed(model, adapter, devices, placement)
        model = adapter.prepared(model).eval().requires_grad_(False)
    except (torch.OutOfMemoryError, MemoryError):
        raise OutOfMemory(
            f"{source} does not fit into the memory of {kind}; choose bfloat16, another device "
            "or a smaller model."
        ) from None
    return LoadedModel(
        model,
        _tokenizer(place, commit),
        adapter,
        source,
        commit,
        identity(place, commit),
        placement,
    )


def _choose(found: MemoryEstimate, placement: str, task: Task | None) -> str:
    """The placement to load with; raises OutOfMemory with the arithmetic when none will do."""
    # a caller that does not say what it wants may only want to evaluate
    for fits in (found, replace(found, task=EVALUATION))[: 2 if task is None else 1]:
        if placement == "auto" and fits.placement():
            return fits.placement()
        if placement != "auto" and fits.fits_as(placement):
            return placement
    raise OutOfMemory(found.sentence("whole" if placement == "auto" else placement))


def _load_weights(
    source: str,
    place: str,
    commit: str | None,
    config: Any,
    dtype: Any,
    device_map: dict[str, str] | None,
) -> Any:
    from transformers import AutoModelForCausalLM

    if getattr(config, "headroom", None):
        from pruning.checkpoint.load import load_compact

        return load_compact(Path(place), config, dtype)
    model, found = guarded(
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
    if found["missing_keys"]:
        name = sorted(found["missing_keys"])[0]
        raise SourceError(f"{source} lacks weight {name!r}; download or save the model again.")
    return model


def locate(source: str, revision: str | None = None) -> tuple[str, str | None]:
    """``(folder or hub id, hub commit or None)``; raises SourceError, UsageError."""
    if not source.strip():
        raise UsageError("No model is named; give 'demo', a hub id, a folder or a .gguf file.")
    if source == "demo":
        from pruning.sources import demo

        return str(demo.folder()), None
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        return str(_converted(path)), None
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise SourceError(f"{path} has no config.json; it is not a model folder.")
        return str(path), None
    if path.is_file() or source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise SourceError(
            f"{source} is not a model folder, a .gguf file, a hub id like 'openai-community/gpt2' "
            "or 'demo'; check the spelling."
        )
    return source, _hub_commit(source, revision)


def _converted(path: Path) -> Path:
    from pruning.files import cache_root
    from pruning.sources.gguf import check_header, convert

    check_header(path)
    stat = path.stat()
    target = cache_root() / "models" / f"{path.stem}-{stat.st_size}-{stat.st_mtime_ns}"
    if not (target / "config.json").is_file():
        convert(path, target)
    return target


def _hub_commit(source: str, revision: str | None) -> str | None:
    """The commit that ``revision`` names now; the cached one when the hub is out of reach."""
    from huggingface_hub import hf_hub_download

    file = guarded(source, hf_hub_download, source, "config.json", revision=revision)
    snapshot = Path(file).parent
    return snapshot.name if snapshot.parent.name == "snapshots" else revision


def guarded(source: str, call: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a hub or loading call; turn its failures into one clear sentence."""
    from huggingface_hub import errors as hub

    try:
        return call(*args, **kwargs)
    except HeadroomError:
        raise
    except hub.GatedRepoError:
        reason = "its licence must be accepted first; set HF_TOKEN in the environment"
    except hub.RevisionNotFoundError:
        reason = "that revision does not exist"
    except hub.RepositoryNotFoundError:
        reason = "no such model on the hub (or it is private: set HF_TOKEN)"
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError):
        reason = (
            "the Hugging Face hub cannot be reached and no local copy exists; check the network, "
            "or use 'demo', a folder or a .gguf file"
        )
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        if "safetensors" in line:
            line = f"it has no safetensors weights ({line})"
        reason = line
    raise SourceError(f"{source} cannot be loaded: {reason.rstrip('.')}.") from None


def _tokenizer(place: str, commit: str | None) -> Any:
    """The model's tokenizer, or None when there is none. Raises SourceError when the folder has one
    that cannot be read: all that is made from the model would silently lack it."""
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(place, revision=commit)
        # where there are no files some classes make one that knows their special tokens only
        if len(found) > len(set(found.all_special_ids)):
            return found
        reason = "its tokens are missing"
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
    folder = Path(place)
    if any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise SourceError(
            f"The tokenizer in {folder} cannot be read ({reason}); save or copy the model again."
        )
    return None


def resolve_device(device: str) -> str:
    """``auto`` becomes cuda, mps or cpu; raises UsageError for one that is not there."""
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind = device.split(":")[0]
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(kind, False):
        names = ", ".join(name for name, present in there.items() if present)
        raise UsageError(f"The device {device!r} is not present; choose auto or one of: {names}.")
    return device


def compute_devices(device: str) -> list[torch.device]:
    """All cards for ``cuda``, else the one device that is named."""
    import torch

    if device == "cuda" and torch.cuda.device_count() > 1:
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [torch.device(device)]


def identity(place: str, commit: str | None) -> str:
    """What tells these weights from others: hub commit, or names, sizes and times of files."""
    if commit is not None:
        return f"{place}@{commit}"
    folder = Path(place)
    if not folder.is_dir():
        return place
    kinds = ("*.safetensors", "*.json", "*.model", "*.txt")  # weights, config, tokenizer
    files = sorted(file for kind in kinds for file in folder.glob(kind))
    stamps = [f"{f.name}:{f.stat().st_size}:{f.stat().st_mtime_ns}" for f in files]
    return f"{folder.resolve()}|{'|'.join(stamps)}"
