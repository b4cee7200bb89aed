"""What a run did, in numbers: typed, serialisable, readable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import FiniteFloat

from pruning.artifacts.events import ModuleEvent, RecoveryCheck
from pruning.artifacts.measurement import Measurement
from pruning.artifacts.plan import ModulePlan, Plan
from pruning.artifacts.shapes import KINDS, Footprint, ModuleKind, Widths, footprint
from pruning.artifacts.stored import Stored
from pruning.artifacts.tuning import TuningReport
from pruning.utils.errors import SourceError
from pruning.utils.version import __version__

_AIMS = {
    "residual": "They count what the residual stream has lost in earlier modules as well, so they "
    "grow from block to block where little is repaired."
}
NAMES: dict[ModuleKind, str] = {"attention": "the attention heads", "ffn": "the FFN channels"}
PACKAGES = ("torch", "transformers", "numpy", "safetensors")


@dataclass(frozen=True)
class ModuleReport:
    """One module: what it kept and lost, and its relative reconstruction errors (None when
    the module was left alone)."""

    kept: int
    removed: tuple[int, ...]
    reasons: tuple[str, ...]
    error_before: FiniteFloat | None
    error_after: FiniteFloat | None
    damping: FiniteFloat | None
    seconds: float


@dataclass(frozen=True)
class BlockReport:
    """The two modules of a block."""

    block: int
    kv_heads_kept: int
    heads: ModuleReport
    channels: ModuleReport


@dataclass(frozen=True)
class Report:
    """A whole run. ``seconds`` covers measuring, planning, cutting and recovery; ``fixed``: kinds
    of module that cannot lose units in this family, and why; ``whole``: what else stays;
    ``dtype``: what was computed in, ``saved_dtype``: what the weights, and bytes, are saved in
    (empty in files of before it was recorded: the same); ``remarks``: those of the plan;
    ``recovery_check``: None where nothing was recovered; ``tuning``: None where nothing was
    trained."""

    model: str
    revision: str | None
    dtype: str
    device: str
    before: Footprint
    after: Footprint
    kept_block_parameters: float
    seconds: float
    solve_seconds: float
    peak_memory_bytes: int
    corpus: str
    corpus_fingerprint: str
    samples: int
    seq_len: int
    seed: int
    recipe: dict[str, Any]
    versions: dict[str, str]
    blocks: tuple[BlockReport, ...]
    fixed: dict[ModuleKind, str] = field(default_factory=dict)
    whole: tuple[str, ...] = ()
    saved_dtype: str = ""
    remarks: tuple[str, ...] = ()
    recovery_check: RecoveryCheck | None = None
    tuning: TuningReport | None = None

    @property
    def file_dtype(self) -> str:
        return self.saved_dtype or self.dtype

    def as_dict(self) -> dict[str, Any]:
        """Plain data, with the flat names of the command line's contract."""
        return {
            "parameters_before": self.before.parameters,
            "parameters_after": self.after.parameters,
            **_STORED.plain(self),
        }

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, origin: str = "The report") -> Report:
        """Read :meth:`to_json` back; raises SourceError in one line when it is damaged."""
        return _STORED.read(text, origin)

    def _formats(self) -> str:
        """In which dtype was computed, and is saved."""
        if self.file_dtype == self.dtype:
            return f"Number format: {self.dtype}."
        return (
            f"Number formats: computed in {self.dtype}, saved in {self.file_dtype}, in which the "
            f"source was read; what was evaluated had its weights rounded to it already."
        )

    def to_markdown(self, heading: str = "#") -> str:
        """The report for people; ``heading`` is the level of its title."""
        aim = self.recipe.get("recovery", {}).get("target")
        rows = "\n".join(_block_row(block) for block in self.blocks)
        fixed = "".join(f"\nNothing goes from {NAMES[k]}: {why}\n" for k, why in self.fixed.items())
        fixed += "".join(f"\n{sentence}\n" for sentence in (*self.whole, *self.remarks))
        checked = f"\n{self.recovery_check.sentence()}\n" if self.recovery_check else ""
        checked += f"\n{self.tuning.sentence()}\n" if self.tuning else ""
        return f"""{heading} What was removed

| | before | after |
|---|---|---|
| parameters | {self.before.parameters:,} | {self.after.parameters:,} |
| parameters of the blocks | {self.before.block_parameters:,} | {self.after.block_parameters:,} |
| bytes ({self.file_dtype}) | {self.before.bytes:,} | {self.after.bytes:,} |
| FLOPs per token (context {self.before.context}) | {self.before.flops_per_token:,} | \
{self.after.flops_per_token:,} |

Calibration: {self.corpus}, {self.samples} windows of {self.seq_len} tokens, seed {self.seed}. \
{self.seconds:.1f} s on {self.device}, {self.solve_seconds:.1f} s of them in solves.
{self._formats()}

Errors are squared errors of a module's output on the calibration tokens, relative to the dense
output, before and after recovery. {_AIMS.get(aim, "")}
{checked}{fixed}
| block | heads kept | heads removed | channels kept | attention error | FFN error |
|---|---|---|---|---|---|
{rows}
"""


_STORED = Stored(
    Report,
    wrong="is damaged",
    advice="save the model again",
    refusal=SourceError,
    derived=("parameters_before", "parameters_after"),
)


def make_report(
    *,
    measurement: Measurement,
    plan: Plan,
    widths: Sequence[Widths],
    events: Sequence[ModuleEvent],
    recipe: dict[str, Any],
    device: str,
    seconds: float,
    peak_memory_bytes: int,
    recovery_check: RecoveryCheck | None = None,
    tuning: TuningReport | None = None,
) -> Report:
    """Gather a run's figures; sizes are counted from ``widths`` (added biases included)."""
    after = footprint(plan.shape, widths, plan.context)
    by_place = {(event.block, event.kind): event for event in events}
    blocks = []
    for index, block in enumerate(plan.blocks):
        modules = [_module(block.module(kind), by_place.get((index, kind))) for kind in KINDS]
        blocks.append(BlockReport(index, len(block.attention.kept_groups), *modules))
    return Report(
        model=measurement.model,
        revision=measurement.revision,
        dtype=measurement.dtype,
        device=device,
        before=plan.before,
        after=after,
        kept_block_parameters=after.block_parameters / plan.before.block_parameters,
        seconds=round(seconds, 3),
        solve_seconds=round(sum(event.solve_seconds for event in events), 3),
        peak_memory_bytes=peak_memory_bytes,
        corpus=measurement.corpus,
        corpus_fingerprint=measurement.corpus_fingerprint,
        samples=measurement.samples,
        seq_len=measurement.seq_len,
        seed=measurement.seed,
        recipe=recipe,
        versions=versions(),
        blocks=tuple(blocks),
        fixed=plan.shape.fixed,
        whole=plan.shape.whole,
        saved_dtype=plan.shape.dtype,
        remarks=plan.remarks,
        recovery_check=recovery_check,
        tuning=tuning,
    )


def versions() -> dict[str, str]:
    """Versions that can change a result."""
    installed = {"headroom": __version__}
    for name in PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def _module(module: ModulePlan, event: ModuleEvent | None) -> ModuleReport:
    # thousands of channels share a handful of phrasings: reasons are spelt out for heads only
    spelt = tuple(module.reasons().values()) if module.kind == "attention" else ()
    return ModuleReport(
        kept=len(module.kept),
        removed=module.removed,
        reasons=spelt,
        error_before=None if event is None else event.error_before,
        error_after=None if event is None else event.error_after,
        damping=None if event is None else event.damping,
        seconds=0.0 if event is None else round(event.seconds, 4),
    )


def _block_row(block: BlockReport) -> str:
    heads = "; ".join(
        f"{head} ({reason})"
        for head, reason in zip(block.heads.removed, block.heads.reasons, strict=True)
    )
    cells = [
        str(block.block),
        str(block.heads.kept),
        heads or "none",
        str(block.channels.kept),
        _errors(block.heads),
        _errors(block.channels),
    ]
    return f"| {' | '.join(cells)} |"


def _errors(module: ModuleReport) -> str:
    if module.error_before is None:
        return "untouched"
    return f"{module.error_before:.4f} → {module.error_after:.4f}"
