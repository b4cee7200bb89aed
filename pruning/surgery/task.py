"""The stages of pruning and repairing one module; plain modules and experts go through the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from pruning.adapters.projection import layer_like, layer_shape, set_layer
from pruning.artifacts.plan import BY_HAND, SIMILARITY, ModulePlan
from pruning.artifacts.recipe import RecoveryRule
from pruning.measure.forward_pass import ModuleSums
from pruning.recovery.base import Finish
from pruning.recovery.solvers.activation_buffer import ActivationBuffer
from pruning.recovery.solvers.expert_fit import ExpertFit
from pruning.recovery.solvers.layer_fit import Fit, OutputProjectionFit
from pruning.recovery.solvers.normal_equations import DAMPINGS
from pruning.surgery.cut import cut, expand
from pruning.surgery.streams import ModulePair, Streams
from pruning.utils.errors import Unsupported
from pruning.utils.precision import to_float64, zeros_float64
from pruning.utils.stopwatch import Stopwatch

T = TypeVar("T")
E = TypeVar("E")
"""Equations of out_proj: of the tokens to fit on and of the held-out ones, or of every expert."""


@dataclass(frozen=True)
class Collected(Generic[E]):
    """What one pass over the windows gathers about a module before its cut.

    ``added`` [n, s, d]: what the dense module adds to its stream; ``energy``: the squared
    norm of the dense out_proj outputs; ``plain_error``: that of the module with its dense weights
    cut as planned (None: nobody asked); ``buffers``: what out_proj of the pruned module read, to
    fit on and held out, where that could be kept.
    """

    equations: E
    added: Tensor
    energy: float
    plain_error: float | None = None
    buffers: tuple[ActivationBuffer, ActivationBuffer] | None = None


@dataclass(frozen=True)
class Finished:
    """``error_before``: that of the cut weights as they were before any recovery; ``fit``: what
    took their place."""

    error_before: float
    fit: Fit


class Task(ABC, Generic[E]):
    """The work on one module, whose cut takes place in the pruned model's block. The stages, in
    their order: :meth:`reconstruct_in_proj`, :meth:`collect`, :meth:`reconstruct_out_proj`,
    :meth:`eliminate`, :meth:`finish`, :meth:`added`; the reconstructions and the elimination may be
    left out. ``solving`` counts the seconds that go into solves. New weights are rounded to
    ``saved_dtype``, so that what comes after a module sees, and makes up for, what will be read
    from the file.
    """

    def __init__(
        self,
        streams: Streams,
        pair: ModulePair,
        rule: RecoveryRule,
        solving: Stopwatch,
        saved_dtype: torch.dtype,
    ) -> None:
        self.streams, self.pair, self.rule, self.solving = streams, pair, rule, solving
        self._saved_dtype = saved_dtype
        self.in_proj_changed = False

    @abstractmethod
    def reconstruct_in_proj(self) -> None:
        """Algorithms 1, 3, 4, first half: fit in_proj, on the pruned stream, to its dense outputs
        on the dense stream."""

    @abstractmethod
    def collect(self, sums: ModuleSums | None, plain: ModulePlan | None = None) -> Collected[E]:
        """One pass: what the dense module adds, and the equations of out_proj on the pruned
        stream. ``sums`` takes in what re-scoring needs. ``plain``: the decision by which the dense
        weights would be cut, for the error that this leaves.

        The target is the dense output plus what the residual stream has lost so far, or the dense
        output alone (``recovery.target``, or a norm after the module: ``PrunableModule.normed``).
        """

    @abstractmethod
    def out_proj_fit(self, equations: E, kept: Tensor) -> OutputProjectionFit | ExpertFit:
        """What a recovery works with to keep the out_proj inputs ``kept``."""

    @abstractmethod
    def added(
        self, collected: Collected[E], decision: ModulePlan
    ) -> Iterator[tuple[slice, Tensor]]:
        """What the cut module adds to the pruned stream, batch by batch, where that is."""

    def _put_in_proj(
        self, in_proj: OutputProjectionFit | ExpertFit, put: Callable[[Fit], None]
    ) -> None:
        """Fit in_proj as the recipe says; ``put`` gives the module its weights."""
        _ = in_proj.parts  # of all ranks
        with self.solving.running():
            checked = self.rule.in_proj == "checked"
            put(self._first(in_proj.cut if checked else in_proj.refitted))
        self.in_proj_changed = True
        if checked:
            self._put_best(in_proj, put)

    def _put_best(
        self, in_proj: OutputProjectionFit | ExpertFit, put: Callable[[Fit], None]
    ) -> None:
        """Of the dampings, and the weights as they are, what brings the module's output closest to
        its target on windows held out from the fit; nothing changes where there are none."""
        held_out = list(self._held_out_targets())
        best, least = None, self._output_error(held_out)
        count = self.streams.ranks.total(torch.tensor(len(held_out)))
        for damping in DAMPINGS if count else ():
            with self.solving.running():
                put(self._first(partial(in_proj.solved, damping, held_out=False)))
            error = self._output_error(held_out)
            if error < least:
                best, least = damping, error
        with self.solving.running():
            put(self._first(partial(in_proj.solved, best)))

    def _held_out_targets(self) -> Iterator[tuple[Tensor, Tensor]]:
        """What the pruned module reads of the held-out windows [b, s, d], and what its out_proj
        should give for it; float32."""
        streams, pair = self.streams, self.pair
        residual = self.rule.target == "residual" and streams.diverged and not pair.pruned.normed
        for batch, dense_in, pruned_in in streams.batches():
            held = streams.held_out(batch)
            if held.any():
                held = held.nonzero()[:, 0]  # a mask would wait for the device
                target = pair.dense_output(dense_in[held])[1].float()
                if residual:
                    lost = streams.lost(batch)[held].to(pair.device)
                    target = target + lost.reshape(target.shape)
                yield pruned_in[held], target

    def _output_error(self, windows: list[tuple[Tensor, Tensor]]) -> float:
        """Squared distance of what the pruned module, uncut, gives from what it should."""
        total = zeros_float64(device=self.pair.device)
        for hidden, target in windows:
            left = self.pair.pruned_output(hidden)[1].float() - target
            total += to_float64(left.square().sum(-1)).sum()
        return self.streams.ranks.total(total).item()

    def _first(self, solve: Callable[[], T]) -> T:
        """What ``solve`` gives on the first rank, which alone has the equations of all."""
        return self.streams.ranks.from_first(solve)

    def reconstruct_out_proj(self, collected: Collected[E]) -> Collected[E]:
        """Algorithms 1, 3, 4, second half: fit out_proj before the cut. Returns the equations in
        the form in which they were solved."""
        layer = self.pair.pruned.out_proj
        like = layer_like(layer)
        out_proj = self.out_proj_fit(collected.equations, torch.arange(layer_shape(layer)[1]))
        equations = out_proj.parts  # the sums of products are not counted as solving
        with self.solving.running():
            fit = self._first(out_proj.refitted)
        set_layer(layer, self.rounded(fit.weight.T, like), self.rounded(fit.bias, like))
        return replace(collected, equations=equations)

    def eliminate(
        self, collected: Collected[E], decision: ModulePlan
    ) -> tuple[Collected[E], np.ndarray]:
        """The turns [units] in which units go when the others make up for them: as many as in
        ``decision``, what similarity or a person chose first, and as it says under grouped
        queries. Returns the equations in the form in which they were solved."""
        module = self.pair.pruned
        out_proj = self.out_proj_fit(
            collected.equations, torch.arange(layer_shape(module.out_proj)[1])
        )
        collected = replace(collected, equations=out_proj.parts)
        per_group = decision.units // decision.groups if decision.groups else 1
        size = per_group if decision.grouped else 1
        even = per_group > 1 and not decision.grouped and not decision.ungrouped
        rows = zip(decision.removed, decision.criteria, strict=True)
        with self.solving.running():
            chosen = partial(
                out_proj.in_turn,
                decision.units // size,
                size * module.unit_width,
                keep=len(decision.kept) // size,
                parts=decision.groups if even else 1,
                first={unit // size for unit, why in rows if why in (SIMILARITY, BY_HAND)},
                never={unit // size for unit in decision.held},
            )
            turns = self._first(chosen)
        return collected, turns.repeat_interleave(size).numpy()

    def finish(self, collected: Collected[E], decision: ModulePlan, recovered: Finish) -> Finished:
        """Find the weights of the units that ``decision`` keeps by the recovery ``recovered``, and
        cut the module."""
        pair, module = self.pair, self.pair.pruned
        like = layer_like(module.out_proj)
        out_proj = self.out_proj_fit(collected.equations, expand(decision.kept, module.unit_width))
        _ = out_proj.parts  # the sums of products are not counted as solving
        with self.solving.running():
            fit = self._first(lambda: recovered(out_proj))
            before = collected.plain_error
            if before is None:
                before = self._first(lambda: out_proj.cut().error)
        cut(
            pair.adapter,
            pair.pruned_block,
            module,
            decision.kept,
            decision.kept_groups,
            self.rounded(fit.weight.T, like),
            self.rounded(fit.bias, like),
        )
        return Finished(before, fit)

    def rounded(self, values: Tensor | None, like: Tensor) -> Tensor | None:
        """New weights as the file will hold them, in the dtype and on the device of ``like``.
        Raises Unsupported for what float16 cannot hold."""
        if values is None:
            return None
        stored = values.to(self._saved_dtype)
        if self._saved_dtype is torch.float16 and not stored.isfinite().all():
            raise Unsupported(
                f"The recovery of block {self.pair.index} finds weights that are too large for "
                "float16, in which the model is stored; choose --dtype float32 or bfloat16."
            )
        return stored.to(like)
