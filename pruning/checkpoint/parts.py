"""What every form is written from, out of a finished run or a folder saved before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from pruning.adapters import ModelAdapter
from pruning.artifacts.shapes import Widths
from pruning.checkpoint.base_model import Origin, origin_of, origin_of_folder
from pruning.checkpoint.records import Evaluation, Records
from pruning.models.compact.config_key import KEY, from_config
from pruning.models.loading.loaded import LoadedModel
from pruning.models.loading.loader import load
from pruning.surgery.result import PruneRun
from pruning.utils.errors import UsageError


@dataclass(frozen=True)
class Parts:
    """``loaded`` is the pruned model."""

    loaded: LoadedModel
    widths: tuple[Widths, ...]
    records: Records
    origin: Origin

    @property
    def model(self) -> nn.Module:
        return self.loaded.model

    @property
    def adapter(self) -> ModelAdapter:
        return self.loaded.adapter


def parts_of(run: PruneRun, evaluation: Evaluation | None = None) -> Parts:
    """A run just finished."""
    return Parts(run.pruned, run.widths, Records.of(run, evaluation), origin_of(run.dense))


def parts_from(folder: Path, dtype: str = "auto") -> Parts:
    """A compact folder saved before, loaded on the CPU; raises SourceError, UsageError."""
    folder = Path(folder)
    records = Records.read(folder)
    loaded = load(str(folder), dtype=dtype, device="cpu")
    config = loaded.model.config
    if not getattr(config, KEY, None):
        raise UsageError(
            f"{folder} holds another form than compact; name the compact folder of the run."
        )
    widths = from_config(getattr(config, KEY), config.num_hidden_layers, str(folder)).widths
    return Parts(loaded, widths, records, origin_of_folder(folder))
