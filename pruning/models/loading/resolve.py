"""What the user typed, as a place, a commit and a device."""

from __future__ import annotations

import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from pruning.artifacts.rules import COMPUTED_IN
from pruning.models.loading import demo
from pruning.models.loading.config import is_dequantised, raw_config
from pruning.models.loading.content import content_key
from pruning.models.loading.gguf import converted, is_converted
from pruning.models.loading.guarded import guarded
from pruning.models.loading.quantised import dequantised
from pruning.utils.errors import SourceError, UsageError
from pruning.utils.hub import is_hub_id, is_reachable
from pruning.utils.registry import unknown_name

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16")


def memory_dtype(dtype: str | None, source: str) -> str:
    """What weights are loaded in for ``dtype`` of a request (None: none is named); ``auto`` is
    float32 for a GGUF file, as in transformers. Raises UsageError for an unknown one."""
    if dtype is not None and dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    automatic = dtype == "auto" and _is_gguf(source)
    return COMPUTED_IN if dtype is None or automatic else dtype


def _is_gguf(source: str) -> bool:
    return source == "demo" or Path(source).suffix == ".gguf"


def locate(
    source: str, revision: str | None = None, *, convert: bool = True
) -> tuple[str, str | None]:
    """``(folder or hub id, hub commit or None)``, of a quantised model that can be dequantised the
    folder of that unless ``convert`` is false; raises SourceError, UsageError, Unsupported."""
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
        if convert and is_dequantised(raw_config(path / "config.json")):
            return guarded(source, dequantised, source, str(path), None), None
        return str(path), None
    if path.is_file() or not is_hub_id(source):
        raise SourceError(
            f"{source} is not a model folder, a .gguf file, a hub id like 'openai-community/gpt2' "
            "or 'demo'; check the spelling."
        )
    config, commit = _hub_config(source, revision)
    if convert and is_dequantised(raw_config(config)):
        return guarded(source, dequantised, source, source, commit), None
    return source, commit


def unconverted(source: str) -> Path | None:
    """The GGUF file behind ``source``, if it is one that was not converted yet."""
    file = demo.gguf_file() if source == "demo" else Path(source).expanduser()
    return file if file.suffix == ".gguf" and not is_converted(file) else None


def _hub_config(source: str, revision: str | None) -> tuple[Path, str | None]:
    """The config, and the commit that ``revision`` names now; the cached ones when the hub is out
    of reach."""
    from huggingface_hub import hf_hub_download

    # asked first: its client would try again for half a minute
    known = {"revision": revision, "local_files_only": not is_reachable()}
    file = Path(guarded(source, hf_hub_download, source, "config.json", **known))
    snapshot = file.parent
    return file, snapshot.name if snapshot.parent.name == "snapshots" else revision


def resolve_device(device: str) -> str:
    """``auto`` becomes cuda, mps or, without a GPU that works, with a warning, cpu. Raises
    UsageError for a device that is not there or fails its first check."""
    names = _present()
    chosen = {"auto": names[0], "cpu:0": "cpu"}.get(device, device)
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
    stamps = [f"{file.name}:{content_key(file)}" for file in files]
    return f"{folder.resolve()}|{'|'.join(stamps)}"
