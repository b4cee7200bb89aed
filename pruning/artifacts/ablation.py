"""What is switched off in a model, and what that changes: plain values, no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pruning.artifacts.comparison import Passage

SENTENCE = "The river carried the boat past the old mill, and the boat carried the children"
"""What is continued unless somebody says another one."""


@dataclass(frozen=True)
class Ablation:
    """Units that are switched off together: what they hand to the output projection is zero, as if
    they had been cut and nothing repaired.

    ``heads``: pairs of block and head; ``ffn``: pairs of block and the share in (0, 1] of its
    channels, the lowest-scored; ``blocks``: whole blocks, which pass on what enters them.
    """

    heads: tuple[tuple[int, int], ...] = ()
    ffn: tuple[tuple[int, float], ...] = ()
    blocks: tuple[int, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.heads or self.ffn or self.blocks)

    def words(self) -> str:
        """``heads 3.1, 3.2; 30% of FFN 5; block 7``: a head is its block and its number."""
        parts = []
        if self.heads:
            named = ", ".join(f"{block}.{head}" for block, head in sorted(self.heads))
            parts.append(f"head{'s' * (len(self.heads) > 1)} {named}")
        parts += [f"{share:.3g}% of FFN {block}" for block, share in self._percent()]
        if self.blocks:
            named = ", ".join(map(str, sorted(self.blocks)))
            parts.append(f"block{'s' * (len(self.blocks) > 1)} {named}")
        return "; ".join(parts) or "nothing"

    def _percent(self) -> list[tuple[int, float]]:
        return [(block, 100 * share) for block, share in sorted(self.ffn)]


@dataclass(frozen=True)
class Change:
    """What the changed model makes of a text beside the dense one, over the ``tokens`` predicted.

    ``loss_before``, ``loss_after``: mean negative log-likelihoods; ``kl``, ``js``: mean divergence
    of the next token's distribution, Kullback-Leibler (dense ‖ changed) and Jensen-Shannon. All in
    nats per token.
    """

    tokens: int
    loss_before: float
    loss_after: float
    kl: float
    js: float

    @property
    def rise(self) -> float:
        """Nats per token by which the loss rose."""
        return self.loss_after - self.loss_before


@dataclass(frozen=True)
class NextToken:
    """A token that may follow a sentence, and its probability ``before`` and ``after``."""

    text: str
    before: float
    after: float


@dataclass(frozen=True)
class Continued:
    """What follows ``sentence``: the likeliest ``tokens`` of both models, those of the dense one
    first, and the divergences of the whole distribution in nats (see :class:`Change`)."""

    sentence: str
    tokens: tuple[NextToken, ...]
    kl: float
    js: float


@dataclass(frozen=True)
class WhatIf:
    """What ``off`` changes. ``change``: on the text, whose windows are ``passages``; ``protocol``:
    the sentence that belongs beside its numbers; ``next``: after the sentence."""

    off: Ablation
    change: Change
    protocol: str
    passages: tuple[Passage, ...]
    next: Continued
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data; single tokens of the text are left out."""
        found = asdict(self)
        del found["passages"]
        return {**found, "off": self.off.words()}


@dataclass(frozen=True)
class Predictor:
    """What foretells how much a head matters: ``values`` [heads], large where it should be missed,
    and Spearman's ``rank_correlation`` of these with the divergence (KL) that switching each head
    off really causes (None: nothing to rank)."""

    name: str
    title: str
    values: tuple[float, ...]
    rank_correlation: float | None


@dataclass(frozen=True)
class LeaveOneOut:
    """The heads of one block, each switched off alone: ``changes`` [heads]. ``predictors``: what
    foretold it, the divergence from the nearest head (τ) first; none without a measurement."""

    block: int
    changes: tuple[Change, ...]
    protocol: str
    predictors: tuple[Predictor, ...]
    seconds: float

    @property
    def by_chance(self) -> float:
        """The ``|rank_correlation|`` that one of twenty random predictors reaches with so many
        heads (two-sided, by the normal approximation)."""
        return min(1.0, 1.96 / max(len(self.changes) - 1, 1) ** 0.5)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "by_chance": self.by_chance}
