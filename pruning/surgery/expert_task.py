"""The work on a mixture of experts: every expert has equations of its own.

The pruned stream routes its tokens itself. An expert e is fitted to them with the share ŵ that the
router gives it: rows ``ŵ·ĥ``, targets ``ŵ·(yᵉ + c)``. ``yᵉ`` is the dense expert's output at the
same token of the dense stream. ``c`` is what is still missing from the dense mixture's output and,
with ``target: residual``, from the stream, divided by the sum of the shares: all experts of a token
make up for it alike, and if each met its target the mixture would meet its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from pruning.adapters.experts import Routing
from pruning.artifacts.plan import ModulePlan
from pruning.measure.forward_pass import ModuleSums
from pruning.models.execution.tap import Tap
from pruning.recovery.solvers.expert_fit import ExpertFit
from pruning.recovery.solvers.layer_fit import OutputProjectionFit
from pruning.recovery.solvers.normal_equations import NormalEquations
from pruning.surgery.task import Collected, Task
from pruning.utils.precision import to_float64, zeros_float64

Pairs = list[tuple[NormalEquations, NormalEquations]]
"""The equations of every expert: of the tokens to fit on and of the held-out ones."""


class ExpertTask(Task[Pairs]):
    """One system of equations per expert."""

    def reconstruct_in_proj(self) -> None:
        """Gate and up of every expert, fitted to those of the dense one at the same tokens."""
        pair, dense = self.pair, self.pair.dense.mixture
        layer = pair.pruned.in_proj["up"].layer
        experts, rows, inputs = layer.stored.shape
        pairs = self._no_equations(inputs, rows)
        for batch, dense_in, pruned_in in self.streams.batches():
            before = pair.tap_dense(dense_in).routing.hidden
            routing = pair.tap_pruned(pruned_in).routing
            for e, (tokens, _) in enumerate(routing.by_expert(experts)):
                target = dense.in_proj(e, before[tokens])
                self._add(pairs[e], batch, tokens, routing.hidden[tokens], target)
        pairs = self._gathered(pairs)
        in_proj = self._fit(pairs, layer.stored, [torch.arange(inputs)] * experts, dim=1)
        self._put_in_proj(in_proj, lambda fit: layer.set(self.rounded(fit.weight.T, layer.stored)))

    def collect(self, sums: ModuleSums | None, plain: ModulePlan | None = None) -> Collected[Pairs]:
        streams, pair = self.streams, self.pair
        outputs, width = pair.pruned.out_proj.stored.shape[1:]
        pairs = self._no_equations(width, outputs)
        dense_added, energy = torch.empty_like(streams.dense), zeros_float64(device=pair.device)
        residual = self.rule.target == "residual" and streams.diverged
        plain_error, cut = zeros_float64(device=pair.device), plain and self._plain_cut(plain)
        for batch, dense_in, pruned_in in streams.batches():
            tap = pair.tap_pruned(pruned_in)
            with Tap(pair.dense) as dense:
                added, target = pair.dense_output(dense_in)
            dense_added[batch] = added.to(dense_added.device)
            own = self._own_outputs(dense, tap.routing)
            if sums:
                sums.add(tap)
            target = target.flatten(0, -2).float()
            if residual:
                target = target + streams.lost(batch).flatten(0, 1).to(pair.device)
            missing = _missing(own, target, tap.routing)
            for e, part in enumerate(tap.parts()):
                shares = part.shares[:, None]
                energy += to_float64(shares * own[e]).square().sum()
                goal = shares * (own[e] + missing[part.tokens])
                self._add(pairs[e], batch, part.tokens, shares * part.out_proj_input, goal)
                if cut:
                    left = shares * cut(e, tap.routing.hidden[part.tokens]) - goal
                    plain_error += to_float64(left).square().sum()
        energy, plain_error = map(streams.ranks.total, (energy, plain_error))
        left_by_cut = plain_error.item() if cut else None
        return Collected(self._gathered(pairs), dense_added, energy.item(), left_by_cut)

    def _plain_cut(self, decision: ModulePlan) -> Callable[[int, Tensor], Tensor]:
        """What a dense expert, its removed channels silent, gives [t, d] for tokens [t, d];
        float32."""
        mixture, stored = self.pair.dense.mixture, self.pair.dense.out_proj.stored
        kept = torch.tensor(decision.kept).reshape(len(stored), -1) % stored.shape[2]
        kept = kept.to(stored.device)

        def cut(expert: int, hidden: Tensor) -> Tensor:
            inner = mixture.inner(mixture.in_proj(expert, hidden))[:, kept[expert]].float()
            return functional.linear(inner, stored[expert][:, kept[expert]].float())

        return cut

    def out_proj_fit(self, equations: Pairs, kept: Tensor) -> ExpertFit:
        stored = self.pair.pruned.out_proj.stored
        channels = kept.reshape(len(stored), -1) % stored.shape[2]
        return self._fit(equations, stored, list(channels), dim=0)

    def added(
        self, collected: Collected[Pairs], decision: ModulePlan
    ) -> Iterator[tuple[slice, Tensor]]:
        return self.streams.added(self.pair)

    def _own_outputs(self, dense: Tap, routing: Routing) -> list[Tensor]:
        """Output [t, d] of each dense expert for the tokens that ``routing``, the pruned stream's,
        sends it."""
        wanted = routing.by_expert(dense.module.experts)
        return [self._own_output(dense, e, tokens) for e, (tokens, _) in enumerate(wanted)]

    def _own_output(self, dense: Tap, expert: int, tokens: Tensor) -> Tensor:
        """Output [t, d] of a dense expert for ``tokens``. For those that the dense stream sends it
        too, most as a rule, it is at hand."""
        part, known = dense.parts()[expert], dense.expert_outputs[expert]
        place = torch.searchsorted(part.tokens, tokens).clamp_max(max(len(part.tokens) - 1, 0))
        at_hand = torch.isin(tokens, part.tokens)
        output = known.new_empty(len(tokens), known.shape[-1], dtype=torch.float32)
        output[at_hand] = known[place[at_hand]].float()
        others = dense.routing.hidden[tokens[~at_hand]]
        with self.pair.autocast():
            output[~at_hand] = dense.module.mixture.output(expert, others).float()
        return output

    def _no_equations(self, inputs: int, outputs: int) -> Pairs:
        """Those before any token."""
        size = (inputs, outputs, self.pair.device)
        experts = range(self.pair.pruned.experts)
        return [(NormalEquations.zeros(*size), NormalEquations.zeros(*size)) for _ in experts]

    def _gathered(self, pairs: Pairs) -> Pairs:
        """The equations of all ranks."""
        ranks = self.streams.ranks
        return [(fitting.gathered(ranks), held.gathered(ranks)) for fitting, held in pairs]

    def _add(
        self,
        parts: tuple[NormalEquations, NormalEquations],
        batch: slice,
        tokens: Tensor,
        x: Tensor,
        target: Tensor,
    ) -> None:
        """Add ``tokens`` of a batch of windows, those that are held out to the second part."""
        held = self.streams.held_out(batch).to(tokens.device)
        held = held[tokens // self.streams.dense.shape[1]]
        for part, chosen in zip(parts, (~held, held), strict=True):
            places = chosen.nonzero()[:, 0]
            part.add(x[places], target[places])

    def _fit(self, pairs: Pairs, stored: Tensor, kept: list[Tensor], dim: int) -> ExpertFit:
        """A fit of the weights ``stored`` [experts, out, in]."""
        layers = [
            OutputProjectionFit.of(
                parts, to_float64(weight).T, None, self.rule.damping, kept=channels
            )
            for parts, weight, channels in zip(pairs, stored, kept, strict=True)
        ]
        return ExpertFit(tuple(layers), dim)


def _missing(own: list[Tensor], target: Tensor, routing: Routing) -> Tensor:
    """What all experts of a token are to add [t, d] to what the dense ones gave it."""
    missing = target.clone()
    for e, (tokens, shares) in enumerate(routing.by_expert(len(own))):
        missing.index_add_(0, tokens, -shares[:, None] * own[e])
    total = routing.shares.float().sum(-1, keepdim=True)
    return missing / total.clamp_min(torch.finfo(torch.float32).tiny)
