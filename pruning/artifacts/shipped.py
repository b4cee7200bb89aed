"""What is shipped with Headroom: beside the package in a checkout, inside it when installed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pruning.artifacts.measurement import Measurement
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.rules import COMPUTED_IN, Calibration
from pruning.utils.digest import sha256_of

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped(name: str) -> Path:
    """The path of the file or folder ``name`` of ``assets``, which may be missing."""
    places = [place / "assets" / name for place in (_PACKAGE, _PACKAGE.parent)]
    return next((place for place in places if place.exists()), places[-1])


DEMO_MEASUREMENT = shipped("demo-measurement.json.gz")


@cache
def demo_measurement() -> Measurement:
    """The measurement of the embedded model; shared, read only. Raises SourceError."""
    return Measurement.read(DEMO_MEASUREMENT)


@cache
def demo_measurement_key() -> str:
    """Tells the file's content from that of another release. Raises OSError."""
    return sha256_of([DEMO_MEASUREMENT.read_bytes()], 16)


def is_measured(recipe: Recipe) -> bool:
    """Whether the shipped measurement is that of ``recipe``'s model and text, by their names."""
    known = demo_measurement()
    text = Calibration(source=known.corpus, samples=known.samples, seq_len=known.seq_len)
    own = {"gradient_samples", "gradient_seq_len", "curve_samples"}
    return (
        (recipe.model.source, recipe.model.dtype or COMPUTED_IN) == (known.model, known.dtype)
        and recipe.seed == known.seed
        and recipe.calibration.model_dump(exclude=own) == text.model_dump(exclude=own)
    )
