"""The loop: AdamW over windows in a random order, the same for the same seed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from pruning.artifacts.events import CancelCheck, Progress, ProgressCallback, stop_if
from pruning.artifacts.tuning import TuningStep
from pruning.tuning.training.state import Position, StateFile
from pruning.tuning.training.trainable import Trainable
from pruning.utils.errors import Cancelled

REPORTS = 100
"""Points of the curve, at most."""
_WARM_UP = 0.05
_LARGEST_GRADIENT = 1.0
_MOMENTS = ("exp_avg", "exp_avg_sq")


class Diverged(Exception):
    """The loss is no number any more."""


class Loop:
    """Trains ``trainable`` on windows ``ids`` [n, s] by ``loss_of(windows)``, the mean loss per
    token of ``batch`` of them. It stands at ``position``, which is kept in ``file``."""

    def __init__(
        self,
        trainable: Trainable,
        loss_of: Callable[[Tensor], Tensor],
        ids: Tensor,
        *,
        batch: int,
        epochs: int,
        learning_rate: float,
        seed: int,
        file: StateFile,
    ) -> None:
        self._parameters = dict(trainable.parameters)
        self._loss_of, self._ids, self._batch, self._seed = loss_of, ids, batch, seed
        self._rate, self._file = learning_rate, file
        self._per_epoch = -(-len(ids) // batch)
        self._steps = self._per_epoch * epochs
        self._scales = trainable.scales()  # before any step
        groups = [{"params": [value]} for value in self._parameters.values()]
        self._optimizer = torch.optim.AdamW(groups, learning_rate, weight_decay=0)
        self.position = Position()

    def run(self, progress: ProgressCallback, should_cancel: CancelCheck) -> None:
        """All steps that are left; raises Cancelled, and Diverged."""
        self._go_on()
        for point in self.position.curve:
            progress(self._report(point))
        every, before = max(1, self._steps // REPORTS), self.position.seconds
        started = time.perf_counter()
        for windows in self._batches():
            try:
                stop_if(should_cancel)
            except Cancelled:
                self._file.write(self.position, self._state())
                raise
            self._step(windows)
            position = self.position
            position.seconds = before + time.perf_counter() - started
            if position.step % every == 0 or position.step == self._steps:
                progress(self._report(self._point()))
            if self._file.due:
                self._file.write(position, self._state())

    def _batches(self) -> Iterator[Tensor]:
        """The windows of every step that is left; each epoch has an order of its own."""
        for step in range(self.position.step, self._steps):
            epoch, place = divmod(step, self._per_epoch)
            generator = torch.Generator().manual_seed(self._seed + epoch)
            order = torch.randperm(len(self._ids), generator=generator)
            yield self._ids[order[place * self._batch : (place + 1) * self._batch]]

    def _step(self, windows: Tensor) -> None:
        position = self.position
        for group, scale in zip(self._optimizer.param_groups, self._scales, strict=True):
            group["lr"] = self._rate * scale * self._part(position.step)
        with torch.enable_grad():
            loss = self._loss_of(windows)
            loss.backward()
        value = loss.item()
        if not math.isfinite(value):
            raise Diverged
        nn.utils.clip_grad_norm_(self._parameters.values(), _LARGEST_GRADIENT)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        position.step += 1
        position.summed += value
        position.counted += 1

    def _part(self, step: int) -> float:
        """What of the learning rate ``step`` has: it rises in a line, then falls as a cosine."""
        warm = max(1, round(_WARM_UP * self._steps))
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, self._steps - warm)))

    def _point(self) -> TuningStep:
        """The next point of the curve."""
        position = self.position
        epochs, rest = divmod(position.step, self._per_epoch)
        windows = epochs * len(self._ids) + min(rest * self._batch, len(self._ids))
        mean = position.summed / position.counted
        point = TuningStep(position.step, self._steps, windows * self._ids.shape[1], mean)
        position.summed, position.counted = 0.0, 0
        position.curve.append(point)
        return point

    def _report(self, point: TuningStep) -> Progress:
        said = f"Divergence from the dense model {point.loss:.3f} nats per token"
        return Progress("tune", point.step, point.steps, said, tuning=point)

    def _state(self) -> dict[str, Tensor]:
        state = {}
        for name, parameter in self._parameters.items():
            state[f"{name}/value"] = parameter
            for moment in _MOMENTS:
                found = self._optimizer.state[parameter].get(moment)
                state[f"{name}/{moment}"] = torch.zeros_like(parameter) if found is None else found
        return state

    def _go_on(self) -> None:
        """Take up what an earlier, interrupted run left."""
        found = self._file.read()
        if found is None or found[1].keys() != self._state().keys():
            return
        self.position, state = found
        for name, parameter in self._parameters.items():
            parameter.data.copy_(state[f"{name}/value"])
            moments = {m: state[f"{name}/{m}"].to(parameter.device) for m in _MOMENTS}
            steps = torch.tensor(float(self.position.step))
            self._optimizer.state[parameter] = {"step": steps, **moments}
