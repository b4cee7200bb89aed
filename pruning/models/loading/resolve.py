"""What the user typed, as a place, a commit and a device."""

from __future__ import annotations

import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.models.loading import demo
from pruning.models.loading.content import content_key
from pruning.models.loading.gguf import converted, is_converted
from pruning.utils.errors import HeadroomError, SourceError, UsageError, one_line
from pruning.utils.hub import is_hub_id, is_reachable
from pruning.utils.memory import is_out_of_memory

if TYPE_CHECKING:
    import torch

_FULL = 64 << 20
"""Bytes of a file up to which all of it tells it from others: every load asks."""

DTYPES = ("auto", "float32", "bfloat16", "float16")


def locate(source: str, revision: str | None = None) -> tuple[str, str | None]:
    """``(folder or hub id, hub commit or None)``; raises SourceError, UsageError."""
    if not source.strip():
        raise UsageError("No model is named; give 'demo', a hub id, a folder or a .gguf file.")
    path = Path(source).expanduser()
    if revision is not None and (source == "demo" or path.suffix == ".gguf" or path.is_dir()):
        raise UsageError(
            f"{source} is no model of the hub, so it has no revision {revision!r}; leave the "
            "revision out, or give the hub id."
        )
    if source == "demo":
        return str(demo.folder()), None
    if path.suffix == ".gguf":
        return str(converted(path)), None
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise SourceError(f"{path} has no config.json; it is not a model folder.")
        return str(path), None
    if path.is_file() or not is_hub_id(source):
        raise SourceError(
            f"{source} is not a model folder, a .gguf file, a hub id like 'openai-community/gpt2' "
            "or 'demo'; check the spelling."
        )
    return source, _hub_commit(source, revision)


def unconverted(source: str) -> Path | None:
    """The GGUF file behind ``source``, if it is one that was not converted yet."""
    file = demo.gguf_file() if source == "demo" else Path(source).expanduser()
    return file if file.suffix == ".gguf" and not is_converted(file) else None


def _hub_commit(source: str, revision: str | None) -> str | None:
    """The commit that ``revision`` names now; the cached one when the hub is out of reach."""
    from huggingface_hub import hf_hub_download

    # asked first: its client would try again for half a minute
    known = {"revision": revision, "local_files_only": not is_reachable()}
    file = guarded(source, hf_hub_download, source, "config.json", **known)
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
        if is_out_of_memory(error):
            raise
        reason = one_line(error)
        if "safetensors" in reason:
            reason = f"it has no safetensors weights ({reason})"
    raise SourceError(f"{source} cannot be loaded: {reason}.") from None


def resolve_device(device: str) -> str:
    """``auto`` becomes cuda, mps or, without a GPU that works, with a warning, cpu. Raises
    UsageError for a device that is not there or fails its first check."""
    names = _present()
    chosen = next(iter(names)) if device == "auto" else device
    if chosen not in names:
        kind = device.split(":")[0]
        near = get_close_matches(kind, ("auto", "cuda", "mps", "cpu"), n=1)
        hint = f" (did you mean {near[0]!r}?)" if near and near[0] != kind else ""
        raise UsageError(
            f"The device {device!r}{hint} is not present; choose auto or one of: "
            f"{', '.join(names)}."
        )
    wrong = _wrong_with(chosen)
    if wrong is None:
        return chosen
    if device == "auto":
        warnings.warn(f"The device {chosen} {wrong}; working on the CPU.", stacklevel=2)
        return "cpu"
    raise UsageError(f"The device {chosen} {wrong}; choose cpu, or update its driver and torch.")


def _present() -> list[str]:
    """Every name of a device that is there, the quickest kind first."""
    import torch

    names = []
    if torch.cuda.is_available():
        names += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        names += ["mps", "mps:0"]
    return [*names, "cpu"]


def _wrong_with(device: str) -> str | None:
    """What the first check finds on any of the devices that ``device`` stands for."""
    from pruning.models.loading.first_check import first_check

    if device == "cpu":
        return None
    found = (first_check(one) for one in compute_devices(device))
    return next((wrong for wrong in found if wrong), None)


def compute_devices(device: str) -> list[torch.device]:
    """All cards for ``cuda``, else the one device that is named."""
    import torch

    if device == "cuda" and torch.cuda.device_count() > 1:
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [torch.device(device)]


def identity(place: str, commit: str | None) -> str:
    """What tells these weights from others: hub commit, or names and content of files."""
    if commit is not None:
        return f"{place}@{commit}"
    folder = Path(place)
    if not folder.is_dir():
        return place
    kinds = ("*.safetensors", "*.json", "*.model", "*.txt")  # weights, config, tokenizer
    files = sorted(file for kind in kinds for file in folder.glob(kind))
    stamps = [f"{file.name}:{content_key(file, _FULL)}" for file in files]
    return f"{folder.resolve()}|{'|'.join(stamps)}"
