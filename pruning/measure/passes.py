"""The passes that a measurement is made of; each adds to what those before it found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from pruning.artifacts.measurement import Measurement
from pruning.artifacts.shipped import demo_measurement_key
from pruning.data.windows import Windows
from pruning.distributed.ranks import ALONE, Ranks
from pruning.measure.cache import cached_measurement, measurement_key
from pruning.measure.forward_pass import measure
from pruning.measure.gradient_pass import with_gradients
from pruning.measure.loss_curves import with_loss_curves
from pruning.models.limits import PROBES
from pruning.models.loading.loaded import LoadedModel
from pruning.utils.stopwatch import Stopwatch


@dataclass(frozen=True)
class MeasuringPass:
    """``key``: what determines its result beside the passes before it, as arguments of
    :func:`measurement_key`; ``extended``: gives their measurement (None: this is the first) with
    what this pass finds; ``is_known``: that needs no cache."""

    key: Mapping[str, Any]
    extended: Callable[[Measurement | None], Measurement]
    is_known: bool = False


def shipped_pass(known: Measurement, identity: str) -> MeasuringPass:
    """In place of the first pass, where the shipped measurement is that of the model ``identity``
    and of the windows."""
    key = {
        "model": f"{identity}|shipped:{demo_measurement_key()}",
        "revision": known.revision,
        "dtype": known.dtype,
        "corpus_fingerprint": known.corpus_fingerprint,
        "samples": known.samples,
        "seq_len": known.seq_len,
        "seed": known.seed,
    }
    return MeasuringPass(key, lambda _: known, is_known=True)


def forward_pass(
    loaded: LoadedModel, windows: Windows, seed: int, callbacks: Mapping[str, Any]
) -> MeasuringPass:
    """The first pass: activations and attention patterns. ``callbacks``: ``progress`` and
    ``should_cancel``, as everywhere."""
    samples, seq_len = windows.ids.shape
    key = {
        "model": loaded.identity,
        "revision": loaded.revision,
        "dtype": loaded.dtype,
        "corpus_fingerprint": windows.fingerprint,
        "samples": samples,
        "seq_len": seq_len,
        "seed": seed,
    }
    named = {"name": loaded.source, "revision": loaded.revision}
    return MeasuringPass(key, lambda _: measure(loaded.model, windows, **named, **callbacks))


def gradient_pass(
    loaded: LoadedModel, windows: Windows, callbacks: Mapping[str, Any]
) -> MeasuringPass:
    """Adds what Taylor and Fisher criteria need."""
    extended = partial(with_gradients, model=loaded.model, windows=windows, **callbacks)
    return MeasuringPass({"gradients": tuple(windows.ids.shape)}, extended)


def loss_curve_pass(
    loaded: LoadedModel,
    windows: Callable[[], Windows],
    texts: int,
    eliminates: bool,
    autocast_dtype: torch.dtype | None,
    callbacks: Mapping[str, Any],
    solving: Stopwatch | None = None,
) -> MeasuringPass:
    """Adds loss curves, from so many ``windows``, made only when they are needed. ``eliminates``:
    see :func:`with_loss_curves`."""
    key: dict[str, Any] = {"loss_curves": (texts, PROBES, int(eliminates))}
    if autocast_dtype:
        key["autocast_dtype"] = str(autocast_dtype)

    def extended(measurement: Measurement) -> Measurement:
        how = {
            "eliminates": eliminates,
            "autocast_dtype": autocast_dtype,
            "solving": solving,
            **callbacks,
        }
        return with_loss_curves(measurement, loaded.model, windows(), **how)

    return MeasuringPass(key, extended)


def run_passes(passes: Iterable[MeasuringPass], ranks: Ranks = ALONE) -> Measurement:
    """The measurement of all ``passes``, one after the other, made by all ``ranks`` together. What
    is in the cache is read from there."""
    measurement, key = None, {}
    for one in passes:
        key |= one.key
        if one.is_known:
            measurement = one.extended(measurement)
            continue
        extended = partial(one.extended, measurement)
        measurement = cached_measurement(measurement_key(**key), extended, ranks)
    return measurement
