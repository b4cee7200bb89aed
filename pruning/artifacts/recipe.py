"""The recipe: everything that determines a pruned model, validated once at the boundary."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from pruning.artifacts.provenance import SECTION as PROVENANCE_SECTION
from pruning.registries import ALLOCATIONS, CRITERIA, HEAD_POLICIES, RECOVERIES
from pruning.utils.errors import UsageError, one_line
from pruning.utils.registry import Registry, unknown_name

LN2 = math.log(2.0)
RECIPE_VERSION: Final = 1
GRADIENT_SAMPLES, GRADIENT_SEQ_LEN = 10, 64
"""The gradient pass of LLM-Pruner."""

ENOUGH_WINDOWS = 320
"""Windows that ``copies: auto`` aims at."""


def _known(registry: Registry[Any]) -> AfterValidator:
    """Checks that a field names an entry of ``registry``, at the first use of a name."""

    def check(name: str) -> str:
        if name not in registry:
            raise ValueError(str(unknown_name(registry.kind, name, registry.names())).rstrip("."))
        return name

    return AfterValidator(check)


CriterionName = Annotated[str, _known(CRITERIA)]
HeadPolicyName = Annotated[str, _known(HEAD_POLICIES)]
AllocationName = Annotated[str, _known(ALLOCATIONS)]
RecoveryName = Annotated[str, _known(RECOVERIES)]
Ratio = Annotated[float, Field(ge=0.0, lt=1.0)]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Compute = Literal["model", "bfloat16", "auto"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelChoice(_Strict):
    """``source``: ``demo``, a hub id, a folder or a ``.gguf`` file."""

    source: str = Field("demo", min_length=1)
    revision: str | None = None
    dtype: Dtype = "float32"


class Calibration(_Strict):
    """Windows of text that the measurement and the recovery see.

    ``source``: a corpus name or a path; ``samples`` windows of ``seq_len`` tokens each.
    ``gradient_*``: the same for the gradient pass, which only some criteria need; its windows
    are never longer than the model's positions.
    """

    source: str = Field("sample", min_length=1)
    samples: int = Field(32, ge=1, le=65536)
    seq_len: int = Field(128, ge=2, le=131072)
    gradient_samples: int = Field(GRADIENT_SAMPLES, ge=1, le=65536)
    gradient_seq_len: int = Field(GRADIENT_SEQ_LEN, ge=2, le=131072)


class BlockRange(_Strict):
    """Blocks ``[start, end)`` may be cut; ``end`` of None means the last block is included."""

    start: int = Field(0, ge=0)
    end: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> BlockRange:
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"the end ({self.end}) must be greater than the start ({self.start})")
        return self


class HeadRule(_Strict):
    """Which attention heads go.

    ``threshold`` is τ of Algorithm 2 in nats (None: similarity is not used); ``ratio`` is the
    share that must go in each block: what similarity did not remove is filled up by ``score``.
    ``policy`` under grouped-query attention: whole key/value groups, the same number of query
    heads from every group, any heads of an ungrouped block, or whichever of these loses least.
    ``drop``: of two like heads, drop the ``first`` (Algorithm 2 as written) or the ``weaker``
    by ``score``.
    """

    threshold: float | None = Field(None, gt=0.0, le=LN2)
    ratio: Ratio = 0.0
    score: CriterionName = "second_moment"
    policy: HeadPolicyName = "query"
    drop: Literal["first", "weaker"] = "weaker"


class FfnRule(_Strict):
    """Which FFN channels go: the ``ratio`` with the lowest ``score`` in each block. ``multiple``:
    the width that stays is rounded to a multiple of it (odd widths run slowly)."""

    ratio: Ratio = 0.0
    score: CriterionName = "second_moment_exact"
    multiple: int = Field(1, ge=1, le=1024)


class Budget(_Strict):
    """What may be left of the whole model; it then takes the place of the two ratios.

    ``kept``: share of the parameters, ``of`` the Transformer blocks or of the whole model.
    ``megabytes``: size of the whole model's weights in its dtype, in 10^6 bytes. Give one.
    ``spare_heads``: it is taken from the FFN alone.
    """

    kept: float | None = Field(None, gt=0.0, le=1.0)
    of: Literal["blocks", "model"] = "blocks"
    megabytes: float | None = Field(None, gt=0.0)
    spare_heads: bool = False

    @model_validator(mode="after")
    def _one(self) -> Budget:
        if self.kept is not None and self.megabytes is not None:
            raise ValueError("give either the share that is kept or megabytes, not both")
        return self

    @property
    def given(self) -> bool:
        return self.kept is not None or self.megabytes is not None


class BlockRule(_Strict):
    """Ratios of one block when the allocation is ``by_hand``."""

    heads: Ratio = 0.0
    ffn: Ratio = 0.0


class Marks(_Strict):
    """Heads of one block that a person marked; they win over every criterion.

    ``keep``: these stay whatever their score; ``drop``: these go. Kept in order, each once.
    """

    keep: tuple[Annotated[int, Field(ge=0)], ...] = ()
    drop: tuple[Annotated[int, Field(ge=0)], ...] = ()

    @field_validator("keep", "drop")
    @classmethod
    def _in_order(cls, heads: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(heads)))

    @model_validator(mode="after")
    def _disjoint(self) -> Marks:
        both = sorted(set(self.keep) & set(self.drop))
        if both:
            raise ValueError(f"head {both[0]} is marked both keep and drop; choose one")
        return self


class RecoveryRule(_Strict):
    """How the loss is repaired (method section 4).

    ``target``: ``residual`` makes each module also repair the drift before it; ``dense`` is the
    paper's (the dense module's own output). ``damping``: relative ridge, or ``auto`` (chosen
    on held-out tokens per module). ``rescore``: choose again with the updated weights.
    ``intercept``: ``auto`` fits a bias only where the layer has one, ``add`` also elsewhere.
    ``scope``: refit only modules that lose units, or every module downstream of a cut.
    ``samples``: calibration windows for recovery (None: those of the measurement).
    ``copies``: further copies of each window in which the dense model has rewritten half of the
    tokens: more to fit on without more data. 0 is quicker; ``auto``: as many as make about
    ENOUGH_WINDOWS windows in all.
    ``compute``: number format of the products in the passes that a float32 model is fitted by:
    the ``model``'s own, ``bfloat16``, or ``auto`` (bfloat16 where the hardware has units for it).
    """

    method: RecoveryName = "refit"
    target: Literal["residual", "dense"] = "residual"
    damping: Literal["auto"] | Annotated[float, Field(gt=0.0, le=1e6)] = "auto"
    rescore: bool = True
    intercept: Literal["auto", "add"] = "auto"
    scope: Literal["pruned", "all"] = "pruned"
    samples: int | None = Field(None, ge=1, le=65536)
    copies: Literal["auto"] | Annotated[int, Field(ge=0, le=64)] = 3
    compute: Compute = "model"


class Recipe(_Strict):
    """A whole run. The same recipe and seed give the same tensors twice.

    ``by_hand``: ratios of single blocks, by number, for the allocation of that name.
    ``marks``: heads to keep or to drop, by block; they must suit the policy for grouped queries.
    """

    version: Literal[1] = RECIPE_VERSION
    model: ModelChoice = ModelChoice()
    calibration: Calibration = Calibration()
    blocks: BlockRange = BlockRange()
    heads: HeadRule = HeadRule()
    ffn: FfnRule = FfnRule()
    budget: Budget = Budget()
    allocation: AllocationName = "uniform"
    by_hand: dict[Annotated[int, Field(ge=0)], BlockRule] = {}
    marks: dict[Annotated[int, Field(ge=0)], Marks] = {}
    recovery: RecoveryRule = RecoveryRule()
    seed: int = Field(0, ge=0, lt=2**31)

    @field_validator("marks")
    @classmethod
    def _only_marked_blocks(cls, marks: dict[int, Marks]) -> dict[int, Marks]:
        return {block: marks[block] for block in sorted(marks) if marks[block] != Marks()}

    @classmethod
    def parse(cls, data: Any, origin: str = "The recipe") -> Recipe:
        """Validate plain data; raises UsageError with one line naming the first bad field."""
        if not isinstance(data, dict):
            raise UsageError(f"{origin} is not a mapping of settings; see the README's example.")
        # a saved recipe also says where it came from, which must not influence a run
        data = {name: value for name, value in data.items() if name != PROVENANCE_SECTION}
        version = data.get("version", RECIPE_VERSION)
        if version != RECIPE_VERSION:
            raise UsageError(
                f"{origin} has version {version!r}, this Headroom reads version "
                f"{RECIPE_VERSION}; use a matching release."
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "recipe"
            message = first["msg"].removeprefix("Value error, ")
            raise UsageError(
                f"{origin} is not valid at {where}: {message} (got {first['input']!r:.80})."
            ) from None

    @classmethod
    def from_yaml(cls, text: str, origin: str = "The recipe") -> Recipe:
        """Parse YAML (or JSON); raises UsageError."""
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"{origin} is not valid YAML: {one_line(error)}.") from None
        return cls.parse(data if data is not None else {}, origin)

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a YAML file; raises UsageError."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"The recipe {path} cannot be read: {one_line(error)}.") from None
        return cls.from_yaml(text, f"The recipe {path}")

    def changed(self, **sections: Any) -> Recipe:
        """A validated copy; a dict value updates that section, anything else replaces it."""
        data = self.model_dump()
        for name, value in sections.items():
            if isinstance(value, dict):
                data[name] = {**data[name], **value}
            else:
                data[name] = value
        return Recipe.parse(data)

    def to_yaml(self) -> str:
        """YAML that :meth:`from_yaml` reads back to an equal recipe."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)
