"""The recipe: everything that determines a pruned model, validated once at the boundary."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pruning.allocation import ALLOCATIONS
from pruning.criteria import SCORES
from pruning.errors import UsageError
from pruning.provenance import SECTION as PROVENANCE_SECTION
from pruning.recovery import RECOVERIES

LN2 = math.log(2.0)
RECIPE_VERSION = 1

Ratio = Annotated[float, Field(ge=0.0, lt=1.0)]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


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
    """

    source: str = Field("sample", min_length=1)
    samples: int = Field(32, ge=1, le=65536)
    seq_len: int = Field(128, ge=2, le=131072)


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
    ``policy`` says what a unit is under grouped-query attention: a whole key/value group, or
    the same number of query heads from every group (always so where there is a single group,
    which cannot go whole). ``drop``: of two like heads, drop the ``first`` (Algorithm 2 as
    written) or the ``weaker`` by ``score``.
    """

    threshold: float | None = Field(None, gt=0.0, le=LN2)
    ratio: Ratio = 0.0
    score: str = "second_moment"
    policy: Literal["kv_group", "query"] = "query"
    drop: Literal["first", "weaker"] = "weaker"


class FfnRule(_Strict):
    """Which FFN channels go: the ``ratio`` with the lowest ``score`` in each block."""

    ratio: Ratio = 0.0
    score: str = "second_moment_exact"


class RecoveryRule(_Strict):
    """How the loss is repaired (method section 4).

    ``target``: ``residual`` makes each module also repair the drift before it; ``dense`` is the
    paper's (the dense module's own output). ``damping``: relative ridge, or ``auto`` (chosen
    on held-out tokens per module). ``rescore``: choose again with the updated weights.
    ``intercept``: ``auto`` fits a bias only where the layer has one, ``add`` also elsewhere.
    ``scope``: refit only modules that lose units, or every module downstream of a cut.
    ``samples``: calibration windows for recovery (None: those of the measurement).
    ``random_share``: windows of random tokens mixed in per calibration window; they show every
    part of the vocabulary. Measured gains vary with the draw, so it is off by default.
    """

    method: str = "refit"
    target: Literal["residual", "dense"] = "residual"
    damping: Literal["auto"] | Annotated[float, Field(gt=0.0, le=1e6)] = "auto"
    rescore: bool = True
    intercept: Literal["auto", "add"] = "auto"
    scope: Literal["pruned", "all"] = "pruned"
    samples: int | None = Field(None, ge=1, le=65536)
    random_share: float = Field(0.0, ge=0.0, le=4.0)


class Recipe(_Strict):
    """A whole run. The same recipe and seed give the same tensors twice."""

    version: Literal[1] = RECIPE_VERSION
    model: ModelChoice = ModelChoice()
    calibration: Calibration = Calibration()
    blocks: BlockRange = BlockRange()
    heads: HeadRule = HeadRule()
    ffn: FfnRule = FfnRule()
    allocation: str = "uniform"
    recovery: RecoveryRule = RecoveryRule()
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _known_names(self) -> Recipe:
        for registry, name in (
            (SCORES, self.heads.score),
            (SCORES, self.ffn.score),
            (ALLOCATIONS, self.allocation),
            (RECOVERIES, self.recovery.method),
        ):
            if name not in registry:
                known = ", ".join(registry.names())
                raise ValueError(f"unknown {registry.kind} {name!r}; choose one of: {known}")
        return self

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
            line = str(error).splitlines()[0]
            raise UsageError(f"{origin} is not valid YAML: {line}.") from None
        return cls.parse(data if data is not None else {}, origin)

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a YAML file; raises UsageError."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"The recipe {path} cannot be read: {error}.") from None
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
