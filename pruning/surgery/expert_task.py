"""A mixture of experts' part in applying a plan: the equations are each expert's own.

The pruned stream routes its tokens itself. An expert e is fitted to them with the share ŵ that the
router gives it: rows ``ŵ·ĥ``, targets ``ŵ·(yᵉ + c)``. ``yᵉ`` is the dense expert's output at the
same token of the dense stream. ``c`` is what is still missing from the dense mixture's output and,
with ``target: residual``, from the stream, divided by the sum of the shares: all experts of a token
make up for it alike, and if each met its target the mixture would meet its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pruning.adapters.experts import Routing
from pruning.models.execution.blockwise import Tap, batches, run_with_output
from pruning.recovery.solvers.expert_fit import ExpertFit
from pruning.recovery.solvers.normal_equations import NormalEquations
from pruning.surgery.module_task import ModuleTask, held_out


class ExpertTask(ModuleTask):
    """The work on one mixture of experts."""

    def reconstruct_in_proj(self) -> None:
        """Gate and up of every expert, fitted to those of the dense one at the same tokens."""
        run, mixture, dense = self.run, self.module.mixture, self._dense_module().mixture
        layer = self.module.in_proj["up"].layer
        _, rows, inputs = layer.stored.shape
        parts = self._zeros(inputs, rows)
        dense_in, pruned_in = run.inputs()
        for batch in batches(*dense_in.shape[:2]):
            before = self._tapped(run.dense_blocks, dense_in[batch]).routing.hidden
            routing = self._tapped(run.pruned_blocks, pruned_in[batch]).routing
            for e, (tokens, _) in enumerate(routing.by_expert(mixture.experts)):
                target = dense.in_proj(e, before[tokens])
                self._add(parts[e], batch, tokens, routing.hidden[tokens], target)
        with self.solving:
            present = [weight.double().T for weight in layer.stored]
            kept = [torch.arange(inputs)] * len(parts)
            fit = self._expert_fits(parts, present, kept, dim=1).refitted()
        layer.set(fit.weight.T.to(layer.stored))

    def collect(self) -> None:
        """One pass: the dense contribution, and each expert's equations on the pruned stream."""
        run, mixture = self.run, self.module.mixture
        outputs, width = mixture.module.down_proj.shape[1:]
        self.parts = self._zeros(width, outputs)
        self.sums = self._no_sums()
        dense_in, pruned_in = run.inputs()
        for batch in batches(*dense_in.shape[:2]):
            tap = self._tapped(run.pruned_blocks, pruned_in[batch])
            own, target = self._dense_run(batch, dense_in[batch], tap.routing)
            if self.sums:
                self.sums.add(tap)
            missing = self._missing(own, target + self._lost(batch), tap.routing)
            for e, part in enumerate(tap.parts()):
                shares = part.shares[:, None]
                self.energy += (shares * own[e]).double().square().sum().item()
                goal = shares * (own[e] + missing[part.tokens])
                self._add(self.parts[e], batch, part.tokens, shares * part.out_proj_input, goal)

    def _dense_run(
        self, batch: slice, hidden: Tensor, pruned: Routing
    ) -> tuple[list[Tensor], Tensor]:
        """Output of each dense expert for the tokens that the ``pruned`` stream sends it, and what
        all gave together [t, d]; the module's contribution is kept."""
        run, module = self.run, self._dense_module()
        block, context = run.dense_blocks[self.index], run.contexts[self.index]
        with Tap(module) as tap:
            added, output = run_with_output(
                run.adapter, block, module, hidden.to(run.device), context
            )
        self.contribution[batch] = added.to(self.contribution.device)
        wanted = pruned.by_expert(module.experts)
        own = [self._outputs(tap, e, tokens) for e, (tokens, _) in enumerate(wanted)]
        return own, output.flatten(0, -2).float()

    def _outputs(self, dense: Tap, expert: int, tokens: Tensor) -> Tensor:
        """Output [t, d] of a dense expert for ``tokens``. Of those that the dense stream sends it
        too, most as a rule, it is at hand."""
        part, seen = dense.parts()[expert], dense.expert_outputs[expert]
        place = torch.searchsorted(part.tokens, tokens).clamp_max(max(len(part.tokens) - 1, 0))
        at_hand = torch.isin(tokens, part.tokens)
        found = seen.new_empty(len(tokens), seen.shape[-1], dtype=torch.float32)
        found[at_hand] = seen[place[at_hand]].float()
        others = dense.routing.hidden[tokens[~at_hand]]
        with self._autocast():
            found[~at_hand] = dense.module.mixture.output(expert, others).float()
        return found

    def _lost(self, batch: slice) -> Tensor | float:
        """What the residual stream has lost so far [t, d], if it is to be made up for."""
        run = self.run
        if run.recipe.recovery.target != "residual" or not run.diverged:
            return 0.0
        lost = run.dense[batch].float() - run.pruned[batch].float()
        return lost.flatten(0, 1).to(run.device)

    def _missing(self, own: list[Tensor], target: Tensor, routing: Routing) -> Tensor:
        """What all experts of a token are to add [t, d] to what the dense ones gave it."""
        missing = target.clone()
        for e, (tokens, shares) in enumerate(routing.by_expert(len(own))):
            missing.index_add_(0, tokens, -shares[:, None] * own[e])
        total = routing.shares.float().sum(-1, keepdim=True)
        return missing / total.clamp_min(torch.finfo(torch.float32).tiny)

    def _zeros(self, inputs: int, outputs: int) -> list[list[NormalEquations]]:
        device = self.run.device
        return [
            [NormalEquations.zeros(inputs, outputs, device) for _ in range(2)]
            for _ in range(self.module.experts)
        ]

    def _add(
        self, pair: list[NormalEquations], batch: slice, tokens: Tensor, x: Tensor, target: Tensor
    ) -> None:
        """Add tokens of a batch of windows to the fitted or the held-out part."""
        held = held_out(batch, self.run.family).to(tokens.device)
        held = held[tokens // self.run.dense.shape[1]]
        pair[0].add(x[~held], target[~held])
        pair[1].add(x[held], target[held])

    def _out_proj_fit(self, kept: Tensor) -> ExpertFit:
        stored = self.module.out_proj.stored
        width = stored.shape[2]
        kept = list(kept.reshape(len(stored), -1) % width)
        return self._expert_fits(self.parts, [weight.double().T for weight in stored], kept, dim=0)

    def _expert_fits(
        self,
        parts: list[list[NormalEquations]],
        present: list[Tensor],
        kept: list[Tensor],
        dim: int,
    ) -> ExpertFit:
        levels = [
            self._fit_of(*pair, (weight, None), places, add_bias=False)
            for pair, weight, places in zip(parts, present, kept, strict=True)
        ]
        return ExpertFit(tuple(levels), dim)
