"""What a dense and a pruned model answered to the same questions: plain values, no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Generic, Literal, TypeVar

Leading = Literal["every", "first", "none"]
"""What a BOS token leads: every window, the text alone, nothing."""

T = TypeVar("T")

_BOS = {
    "every": "a BOS token before every window, counted in it",
    "first": "with a BOS token first",
    "none": "no BOS token",
}


@dataclass(frozen=True)
class Pair(Generic[T]):
    """The same question put to the dense and to the pruned model."""

    before: T
    after: T


@dataclass(frozen=True)
class Perplexity:
    """``nll``: mean negative log-likelihood per predicted token, in nats; ``perplexity`` is
    its exponential; ``tokens`` predicted over ``windows`` windows of ``seq_len``."""

    perplexity: float
    nll: float
    tokens: int
    windows: int
    seq_len: int
    dtype: str
    seconds: float
    corpus: str
    split: str
    bos: Leading
    fingerprint: str

    def protocol(self) -> str:
        """The sentence that belongs beside the number."""
        bos = _BOS[self.bos]
        return (
            f"{self.corpus} ({self.split}), tokenised once ({bos}), {self.windows} consecutive "
            f"windows of {self.seq_len} tokens, tokens 2 to {self.seq_len} of each predicted, "
            f"{self.dtype}."
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Speed:
    """Tokens per second: ``prefill`` reading a prompt, ``decode`` writing one by one (batch 1)."""

    prefill: float
    decode: float


@dataclass(frozen=True)
class Generation:
    """What the model wrote after the prompt."""

    text: str
    new_tokens: int
    seconds: float


@dataclass(frozen=True)
class Passage:
    """One window of text. ``pieces`` [s]: the text of each token (joined they are the passage);
    ``dense``, ``pruned`` [s - 1]: negative log-likelihood in nats of tokens 2 to s."""

    pieces: tuple[str, ...]
    dense: tuple[float, ...]
    pruned: tuple[float, ...]

    @property
    def rises(self) -> tuple[float, ...]:
        """Nats by which each predicted token became less likely [s - 1]; negative: likelier."""
        return tuple(b - a for a, b in zip(self.dense, self.pruned, strict=True))

    @property
    def mean_rise(self) -> float:
        """Mean of :attr:`rises`."""
        return sum(self.rises) / len(self.rises)


@dataclass(frozen=True)
class TokenLosses:
    """The passages of a text, in order, and where they come from."""

    corpus: str
    split: str
    seq_len: int
    passages: tuple[Passage, ...]

    def worst(self, count: int) -> list[tuple[int, int, float]]:
        """``(passage, token, rise in nats)`` of the tokens whose likelihood fell most."""
        rises = [
            (index, place, rise)
            for index, passage in enumerate(self.passages)
            for place, rise in enumerate(passage.rises, start=1)
        ]
        return sorted(rises, key=lambda item: -item[2])[:count]


@dataclass(frozen=True)
class Questions:
    """What is asked of both models at the end of a run. ``text``: perplexity and the losses of
    single tokens on the first ``windows`` windows of ``seq_len`` tokens of it (None: not asked);
    ``speed``: tokens per second; ``prompt``: is continued by ``new_tokens`` (None: not asked)."""

    text: str | None = "sample"
    seq_len: int = 128
    windows: int = 16
    speed: bool = True
    prompt: str | None = "The water cycle describes how water moves"
    new_tokens: int = 32


@dataclass(frozen=True)
class Comparison:
    """The answers to :class:`Questions`; None: not asked, not to be had (``problems`` says why, a
    sentence each) or cancelled. ``prompt`` is what ``texts`` continue."""

    perplexity: Pair[Perplexity] | None = None
    tokens: TokenLosses | None = None
    speed: Pair[Speed] | None = None
    texts: Pair[Generation] | None = None
    prompt: str = ""
    problems: tuple[str, ...] = ()


_NOISE = 1.5
"""By how much a ratio of speeds may leave what the sizes allow."""


def is_plausible(speed: Pair[Speed], kept: float) -> bool:
    """Whether sizes allow such speeds: no model that keeps the share ``kept`` gains more than it
    lost. Else the machine was busy with other work, and the ratio says nothing."""
    before, after = speed.before, speed.after
    ratios = (after.decode / before.decode, after.prefill / before.prefill)
    return all(1 / _NOISE <= ratio <= _NOISE / kept for ratio in ratios)


def headline(kept: float, comparison: Comparison | None) -> str:
    """A run in one sentence: ``15% of the block parameters gone, perplexity 58 → 68, 1.2 × as
    fast`` (decode). ``kept``: share of the block parameters; what is not known is left out."""
    parts = [f"{1 - kept:.0%} of the block parameters gone"]
    if comparison is not None and comparison.perplexity is not None:
        scores = (comparison.perplexity.before.perplexity, comparison.perplexity.after.perplexity)
        digits = 0 if abs(scores[1] - scores[0]) >= 1 and min(scores) >= 10 else 1
        old, new = (f"{score:,.{digits}f}" if math.isfinite(score) else "∞" for score in scores)
        parts.append(f"perplexity {old} → {new}")
    if comparison is not None and comparison.speed is not None:
        speed = comparison.speed
        if is_plausible(speed, kept):
            ratio = speed.after.decode / speed.before.decode
            clear = ratio >= 1.05 or ratio < 0.95
            parts.append(f"{ratio:.1f} × as fast" if clear else "about as fast")
    return ", ".join(parts)
