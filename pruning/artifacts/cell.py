"""One cell of an experiment or of a sweep: a recipe that was carried out, and what came of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import FiniteFloat

from pruning.artifacts.stored import Stored
from pruning.artifacts.zero_shot import ZeroShot
from pruning.utils.errors import SourceError

CELL_VERSION = 2


@dataclass(frozen=True)
class Protocol:
    """How a cell is evaluated: perplexity on the first ``windows`` (None: all) windows of
    ``seq_len`` tokens of each of ``texts``, accuracy on the first ``limit`` (None: all) items of
    each of ``tasks``, whose rows come from the folder ``task_data`` (None: the hub)."""

    texts: tuple[str, ...] = ("sample",)
    seq_len: int = 128
    windows: int | None = None
    tasks: tuple[str, ...] = ()
    task_data: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class TextScore:
    """``perplexity`` None: it overflows; ``nll`` None: it is not even finite."""

    text: str
    perplexity: FiniteFloat | None
    nll: FiniteFloat | None
    protocol: str


@dataclass(frozen=True)
class Latency:
    """At batch 1, the best of ``repeats`` runs: milliseconds that a prompt of ``prompt_tokens``
    takes, and those of each of ``new_tokens`` tokens behind it."""

    prefill_ms: FiniteFloat
    decode_ms: FiniteFloat
    prompt_tokens: int
    new_tokens: int
    repeats: int
    threads: int

    def protocol(self) -> str:
        """The sentence that belongs beside the numbers."""
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        return (
            f"Latencies at batch 1: a prompt of {self.prompt_tokens} tokens, {self.new_tokens} "
            f"tokens behind it, best of {self.repeats}, {threads}."
        )


@dataclass(frozen=True)
class Cell:
    """``recipe`` None: the dense model. ``kept``: share of the blocks' parameters that is left;
    ``macs_per_token``: multiply-adds at a context of the protocol's ``seq_len``, attention maps
    included; ``heads_removed`` of ``heads`` in all blocks. ``recovery``: which of both the recipe
    kept, the recovered model or the plain cut (None: they were not compared). ``latency`` None:
    not timed, as blocks wait elsewhere than on the device. ``seconds``: pruning and evaluating;
    ``peak_memory_bytes``: meanwhile, of the process on the CPU, the model's weights included.
    ``made``: when, in ISO 8601."""

    model: str
    dtype: str
    device: str
    recipe: dict[str, Any] | None
    kept: FiniteFloat
    parameters: int
    macs_per_token: int
    heads: int
    heads_removed: int
    recovery: Literal["recovered", "plain"] | None
    latency: Latency | None
    texts: tuple[TextScore, ...]
    zero_shot: ZeroShot | None
    seconds: FiniteFloat
    peak_memory_bytes: int
    versions: dict[str, str]
    made: str

    def as_dict(self) -> dict[str, Any]:
        return _STORED.plain(self)

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes, origin: str = "The cell") -> Cell:
        """Read :meth:`to_json` back; raises SourceError in one line when it is damaged."""
        return _STORED.read(text, origin)


_STORED = Stored(
    Cell,
    wrong="is damaged",
    advice="run the experiment again",
    header={"version": CELL_VERSION},
    refusal=SourceError,
)
