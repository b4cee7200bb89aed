"""A whole run as it was: to be looked at again without computing anything."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import FiniteFloat

from pruning.artifacts.comparison import Comparison
from pruning.artifacts.events import ModuleEvent
from pruning.artifacts.plan import ModulePlan, Plan
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.report import Report
from pruning.artifacts.shipped import shipped
from pruning.artifacts.stored import Stored
from pruning.utils.errors import SourceError, one_line
from pruning.utils.files import unpacked, write_bytes

DEMO_RUN = shipped("demo-run.json.gz")
ADVICE = "record it again with 'make assets'"


@dataclass(frozen=True)
class RecordedRun:
    """What a finished run holds, without its models (``dense``, ``pruned``: None). ``seconds`` are
    those of the whole run with its comparison; ``date`` (ISO) and ``machine`` say when and on what
    it was made."""

    recipe: Recipe
    plan: Plan
    events: tuple[ModuleEvent, ...]
    seconds: FiniteFloat
    report: Report
    comparison: Comparison
    date: str
    machine: str

    @property
    def dense(self) -> None:
        """There are no models in a file."""

    @property
    def pruned(self) -> None:
        """There are no models in a file."""

    def write(self, path: Path) -> None:
        """Write gzipped JSON, whole or not at all; raises HeadroomError."""
        # an event's decision is the module of the plan: it is written once
        lean = tuple(replace(event, decision=_NO_DECISION) for event in self.events)
        data = json.dumps(_STORED.plain(replace(self, events=lean)), allow_nan=False)
        write_bytes(path, gzip.compress(data.encode(), mtime=0))

    @classmethod
    def read(cls, path: Path) -> RecordedRun:
        """Read :meth:`write`; raises SourceError in one line."""
        try:
            text = unpacked(path.read_bytes())
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise SourceError(f"The run {path} cannot be read: {one_line(error)}.") from None
        run = _STORED.read(text, f"The run {path}")
        whole = tuple(
            replace(event, decision=run.plan.blocks[event.block].module(event.kind))
            for event in run.events
        )
        return replace(run, events=whole)


_NO_DECISION = ModulePlan(0, "ffn", 0, 0, False, (), (), (), (), ())

_STORED = Stored(
    RecordedRun,
    wrong="is not a whole recorded run",
    advice=ADVICE,
    refusal=SourceError,
    header={"version": 1},
)
