"""What a tuning did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import FiniteFloat


@dataclass(frozen=True)
class TuningStep:
    """The training after ``step`` of ``steps`` optimizer steps, which read ``tokens`` tokens.
    ``loss``: mean divergence from the dense model over the steps since the last report, in nats
    per token."""

    step: int
    steps: int
    tokens: int
    loss: FiniteFloat


@dataclass(frozen=True)
class TuningReport:
    """A whole tuning. ``parameters``: how many numbers were trained; ``windows`` of ``seq_len``
    tokens were seen ``epochs`` times. ``untuned`` and ``tuned``: divergence from the dense model
    on ``held_out`` other windows, in nats per token, with weights as they are saved (None: it was
    not finite, or not asked for); ``kept``: the one that the run gives. ``seconds``: of the
    training, those before an interruption included."""

    method: str
    title: str
    parameters: int
    windows: int
    seq_len: int
    epochs: int
    batch: int
    learning_rate: FiniteFloat
    held_out: int
    untuned: FiniteFloat | None
    tuned: FiniteFloat | None
    kept: Literal["tuned", "untuned"]
    seconds: FiniteFloat
    curve: tuple[TuningStep, ...]

    @property
    def tokens(self) -> int:
        """How many tokens were read, each as often as it was."""
        return self.windows * self.seq_len * self.epochs

    def sentence(self) -> str:
        """For people: what was done, and whether it is kept."""
        times = "once" if self.epochs == 1 else f"{self.epochs} times"
        done = (
            f"{self.title} trained {self.parameters:,} parameters on {self.windows} windows of "
            f"{self.seq_len} tokens, each read {times}"
        )
        if not self.held_out:
            return f"{done}."
        found = (
            f"divergence from the dense model {_nats(self.untuned)} → {_nats(self.tuned)} nats "
            f"per token on {self.held_out} held-out windows"
        )
        if self.kept == "tuned":
            return f"{done}: {found}."
        return f"{done}, but {found}: the untuned model is kept. Try a smaller learning rate."


def _nats(value: float | None) -> str:
    return "beyond measure" if value is None else f"{value:.3f}"
