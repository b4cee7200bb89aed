"""Tensors in safetensors files: those that a model was saved with, and those that pruning made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from weakref import finalize

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pruning.utils.errors import OutOfMemory, SourceError
from pruning.utils.files import cache_root
from pruning.utils.leftovers import own_prefix, sweep_dead


@dataclass(frozen=True)
class TensorRef:
    """A tensor of a safetensors file."""

    file: str
    name: str

    def read(self, dtype: torch.dtype) -> Tensor:
        """The tensor, copied into CPU memory; raises SourceError when the file went."""
        try:
            with safe_open(self.file, framework="pt") as opened:
                # a copy: what is mapped would count as memory for as long as the file is open
                return opened.get_tensor(self.name).to(dtype, copy=True)
        except (OSError, SafetensorError) as error:
            raise SourceError(
                f"{self.file} cannot be read any more ({error}); load the model again."
            ) from None


class SpilledParameter(nn.Parameter):
    """Stands on the meta device for a parameter in a file of its own, ``source``."""

    def __new__(cls, like: Tensor, source: TensorRef) -> SpilledParameter:
        return super().__new__(cls, torch.empty_like(like, device="meta"), requires_grad=False)

    def __init__(self, like: Tensor, source: TensorRef) -> None:
        super().__init__()
        self.source = source


class SpilledParams:
    """Parameters that pruning made, in files of their own; a file goes with its parameter."""

    def __init__(self) -> None:
        self._folder: TemporaryDirectory | None = None
        self._count = 0

    def written(self, parameter: nn.Parameter) -> SpilledParameter:
        """What stands for ``parameter`` once it is in a file; raises OutOfMemory when the disk is
        full."""
        try:
            if self._folder is None:
                self._folder = _own_folder(cache_root())
            file = Path(self._folder.name) / f"{self._count}.safetensors"
            save_file({"made": parameter.detach().to("cpu").contiguous()}, file)
        except (OSError, SafetensorError) as error:
            raise OutOfMemory(
                f"The pruned blocks cannot be written to {cache_root()} ({error}); free disk space "
                "or set HEADROOM_CACHE to a folder with more of it."
            ) from None
        self._count += 1
        away = SpilledParameter(parameter, TensorRef(str(file), "made"))
        finalize(away, file.unlink, missing_ok=True)
        return away


def _own_folder(root: Path) -> TemporaryDirectory:
    """A folder of this process below ``root``. Those of processes that were killed go."""
    root.mkdir(parents=True, exist_ok=True)
    sweep_dead(root, "blocks-")
    return TemporaryDirectory(prefix=own_prefix("blocks-"), dir=root)
