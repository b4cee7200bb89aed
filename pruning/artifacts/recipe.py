"""The recipe: everything that determines a pruned model, validated once at the boundary."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pruning.artifacts.provenance import SECTION as PROVENANCE_SECTION
from pruning.registries import ALLOCATIONS, CRITERIA, HEAD_POLICIES, RECOVERIES
from pruning.utils import plain_yaml
from pruning.utils.errors import UsageError, one_line, short_repr, shortened
from pruning.utils.registry import Registry, unknown_name

LN2 = math.log(2.0)
RECIPE_VERSION: Literal[1] = 1
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
Bos = Literal["auto", "every", "first", "none"]


def _form(group: str, **more: Any) -> dict[str, Any]:
    """How a form shows a field, beside its title, description and bounds: the ``group`` that it
    stands in, and ``choices`` (titles of a Literal's values), ``registry`` (its kind, where a
    field names an entry), ``step`` and ``digits`` of a number, ``percent`` for a share, ``empty``
    (what None means), ``auto`` (title of the switch that chooses by itself) with the ``start``
    value of the other choice."""
    return {"group": group, **more}


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        values = value if isinstance(value, list | tuple) else (value,)
        wants_bool = cls.model_fields[info.field_name or ""].annotation is bool
        if not wants_bool and any(isinstance(each, bool) for each in values):
            raise ValueError("true and false are neither a number nor a name")
        return value


def _path_or_name(source: str) -> str:
    """No system names a file or a repository with such characters."""
    if not source.isprintable() and any(ord(letter) < 32 for letter in source):
        raise ValueError("it holds control characters")
    return source


Source = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_path_or_name)]


class ModelChoice(_Strict):
    """``source``: ``demo``, a hub id, a folder or a ``.gguf`` file."""

    source: Source = "demo"
    revision: str | None = None
    dtype: Dtype = "float32"


class Calibration(_Strict):
    """Windows of text that the measurement and the recovery see.

    ``source``: a corpus name or a path; ``samples`` windows of ``seq_len`` tokens each.
    ``text_field``: column of a JSON or parquet file (None: the first of its usual names).
    ``bos``: the beginning-of-sequence token leads ``every`` window, the text (``first``) or none;
    ``auto`` is every where the tokenizer adds one by default, else none.
    ``gradient_*``: the same for the gradient pass, which only some criteria need; its windows
    are never longer than the model's positions.
    """

    source: Source = "sample"
    text_field: str | None = Field(None, min_length=1, max_length=200)
    bos: Bos = "auto"
    samples: int = Field(
        32,
        ge=1,
        le=65536,
        title="Samples",
        description="Windows of text. More give steadier decisions and take longer.",
        json_schema_extra=_form("calibration", step=8),
    )
    seq_len: int = Field(
        128,
        ge=2,
        le=131072,
        title="Tokens each",
        description="Length of one window in tokens; 128 is the usual choice for Llama models.",
        json_schema_extra=_form("calibration", step=32),
    )
    gradient_samples: int = Field(
        GRADIENT_SAMPLES,
        ge=1,
        le=65536,
        title="Samples of the gradient pass",
        description="Windows of text that gradients are taken on; LLM-Pruner takes 10.",
        json_schema_extra=_form("gradients", step=2),
    )
    gradient_seq_len: int = Field(
        GRADIENT_SEQ_LEN,
        ge=2,
        le=131072,
        title="Tokens of each",
        description="Length of one such window in tokens; LLM-Pruner takes 64.",
        json_schema_extra=_form("gradients", step=32),
    )


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
    ratio: Ratio = Field(
        0.0,
        title="Heads to remove",
        description="Share of attention heads that must go in each block. What similarity did not "
        "remove is filled up with the heads that the criterion ranks lowest.",
        json_schema_extra=_form("size", percent=True),
    )
    score: CriterionName = Field(
        "second_moment",
        title="Criterion for heads",
        description="How much a unit matters; the lowest go first.",
        json_schema_extra=_form("choosing", registry="criteria"),
    )
    policy: HeadPolicyName = Field(
        "query",
        title="Grouped queries",
        description="In this model several query heads share one key/value head. Whole groups can "
        "go, or the same number of query heads from every group; or the block is rewritten so "
        "that any heads can go, where that still saves parameters.",
        json_schema_extra=_form("choosing", registry="head_policies"),
    )
    drop: Literal["first", "weaker"] = Field(
        "weaker",
        title="Of two heads that are alike, remove",
        description="Matters only when similarity is on.",
        json_schema_extra=_form(
            "choosing",
            choices={
                "weaker": "The weaker one, by criterion",
                "first": "The first one (paper's Algorithm 2)",
            },
        ),
    )


class FfnRule(_Strict):
    """Which FFN channels go: the ``ratio`` with the lowest ``score`` in each block. ``multiple``:
    the width that stays is rounded to a multiple of it (odd widths run slowly)."""

    ratio: Ratio = Field(
        0.0,
        title="FFN channels to remove",
        description="Share of the feed-forward network's inner channels that go in each block, "
        "those that the criterion ranks lowest.",
        json_schema_extra=_form("size", percent=True),
    )
    score: CriterionName = Field(
        "second_moment_exact",
        title="Criterion for FFN channels",
        description="How much a unit matters; the lowest go first.",
        json_schema_extra=_form("choosing", registry="criteria"),
    )
    multiple: int = Field(
        1,
        ge=1,
        le=1024,
        title="Round FFN widths to a multiple of",
        description="Hardware runs odd widths slowly; 64 or 128 suits most.",
        json_schema_extra=_form("choosing", step=8),
    )


class Budget(_Strict):
    """What may be left of the whole model; it then takes the place of the two ratios.

    ``kept``: share of the parameters, ``of`` the Transformer blocks or of the whole model.
    ``megabytes``: size of the whole model's weights in its dtype, in 10^6 bytes. Give one.
    ``spare_heads``: it is taken from the FFN alone.
    """

    kept: float | None = Field(None, gt=0.0, le=1.0)
    of: Literal["blocks", "model"] = "blocks"
    megabytes: float | None = Field(None, gt=0.0)
    spare_heads: bool = Field(
        False,
        title="Only FFN channels",
        description="Every head stays; all of the size is taken from the FFN. Heads hold few "
        "parameters, and with little calibration text they are the harder part to repair.",
        json_schema_extra=_form("budget"),
    )

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
    ``in_proj``: what a reconstruction does to a module's first layers. ``dense``: they are fitted
    to their dense outputs (paper); ``checked``: so, with the damping by which the module comes
    closest to its target on held-out windows, or not at all; ``keep``: they stay.
    ``scope``: refit only modules that lose units, or every module downstream of a cut.
    ``samples``: calibration windows for recovery (None: those of the measurement).
    ``copies``: further copies of each window in which the dense model has rewritten half of the
    tokens: more to fit on without more data. 0 is quicker; ``auto``: as many as make about
    ENOUGH_WINDOWS windows in all.
    ``keep_better``: the recovered model is compared with the plain cut on held-out windows of the
    calibration text, and the plain cut is kept where recovery made it worse. Off only to show what
    a method does by itself.
    ``compute``: number format of the products in the passes that a float32 model is fitted by:
    the ``model``'s own, ``bfloat16``, or ``auto`` (bfloat16 where the hardware has units for it).
    """

    method: RecoveryName = Field(
        "refit",
        title="Recovery",
        description="Recovery solves for new weights of the layers that stay, so that the block's "
        "output stays close to the dense one. No training.",
        json_schema_extra=_form("method", registry="recoveries"),
    )
    target: Literal["residual", "dense"] = Field(
        "residual",
        title="Repair toward",
        description="The first also repairs the error that earlier cuts left.",
        json_schema_extra=_form(
            "recovery",
            choices={
                "residual": "Output and the drift so far",
                "dense": "The dense module's output (paper)",
            },
        ),
    )
    in_proj: Literal["dense", "checked", "keep"] = Field(
        "dense",
        title="First layers of a module",
        description="What reconstruction does to queries, keys, values, up and gate.",
        json_schema_extra=_form(
            "recovery",
            choices={
                "dense": "Fit to their dense outputs (paper)",
                "checked": "Fit where that helps the module",
                "keep": "Leave as they are",
            },
        ),
    )
    damping: Literal["auto"] | Annotated[float, Field(gt=0.0, le=1e6)] = Field(
        "auto",
        title="Damping",
        description="Damping holds the solution near the present weights. Automatic: chosen for "
        "each module on text held out from calibration.",
        json_schema_extra=_form(
            "recovery", auto="Choose damping automatically", start=0.3, step=0.1, digits=4
        ),
    )
    rescore: bool = Field(
        True,
        title="Rank again before each cut",
        description="By the weights as already repaired. What goes may then differ a little from "
        "the preview.",
        json_schema_extra=_form("recovery"),
    )
    intercept: Literal["auto", "add"] = Field(
        "auto",
        title="Bias terms",
        description="An added bias carries the mean of what was cut.",
        json_schema_extra=_form(
            "recovery",
            choices={"auto": "Only where the layer has a bias", "add": "Add a bias everywhere"},
        ),
    )
    scope: Literal["pruned", "all"] = Field(
        "pruned",
        title="Modules to repair",
        json_schema_extra=_form(
            "recovery",
            choices={"pruned": "Only modules that lose units", "all": "Every module after a cut"},
        ),
    )
    samples: int | None = Field(
        None,
        ge=1,
        le=65536,
        title="Samples for recovery",
        description="Windows of the calibration text to solve on; empty means as many as for "
        "measuring. More give a better repair and take longer.",
        json_schema_extra=_form("recovery", step=32, empty="as for calibration"),
    )
    copies: Literal["auto"] | Annotated[int, Field(ge=0, le=64)] = Field(
        3,
        title="Augmentations of each sample",
        description="More text for the repair without more data: further copies of each sample in "
        "which the model has resampled half of the tokens. More give a better repair and take "
        f"longer. Automatic: as many as make about {ENOUGH_WINDOWS} windows.",
        json_schema_extra=_form(
            "recovery", auto="Choose augmentations automatically", start=3, step=1
        ),
    )
    keep_better: bool = Field(
        True,
        title="Never worse than the plain cut",
        description="Compares the recovered model with the cut alone on held-out text and keeps "
        "the better one. Costs two passes over a quarter as much text.",
        json_schema_extra=_form("recovery"),
    )
    compute: Compute = Field(
        "model",
        title="Autocast",
        description="Number format of the passes over the text. bfloat16 is quicker on hardware "
        "made for it; weights and equations stay as they are.",
        json_schema_extra=_form(
            "recovery",
            choices={
                "model": "The model's own number format",
                "bfloat16": "bfloat16",
                "auto": "bfloat16 where the hardware has units for it",
            },
        ),
    )


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
    allocation: AllocationName = Field(
        "uniform",
        title="Sparsity allocation",
        description="Where the size is taken: how much each block and module loses.",
        json_schema_extra=_form("choosing", registry="allocations"),
    )
    by_hand: dict[Annotated[int, Field(ge=0)], BlockRule] = {}
    marks: dict[Annotated[int, Field(ge=0)], Marks] = {}
    recovery: RecoveryRule = RecoveryRule()
    seed: int = Field(
        0,
        ge=0,
        lt=2**31,
        title="Seed",
        description="Decides which windows are sampled. Same recipe and seed, same result.",
        json_schema_extra=_form("calibration"),
    )

    @field_validator("by_hand", "marks", mode="before")
    @classmethod
    def _each_block_once(cls, blocks: Any) -> Any:
        if isinstance(blocks, dict):
            # JSON has block numbers as text, so that 1 and "1" are one block
            if any(not isinstance(key, int | str) or isinstance(key, bool) for key in blocks):
                raise ValueError("blocks are named by whole numbers")
            if len({str(key).strip().lstrip("+0") for key in blocks}) < len(blocks):
                raise ValueError("a block is there twice")
        return blocks

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
                f"{origin} has version {short_repr(version, 40)}, this Headroom reads version "
                f"{RECIPE_VERSION}; use a matching release."
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(shortened(str(part), 40) for part in first["loc"]) or "recipe"
            message = first["msg"].removeprefix("Value error, ")
            raise UsageError(
                f"{origin} is not valid at {where}: {message} (got {short_repr(first['input'])})."
            ) from None

    @classmethod
    def from_yaml(cls, text: str | bytes, origin: str = "The recipe") -> Recipe:
        """Parse YAML (or JSON) of at most :data:`plain_yaml.LARGEST` characters; raises
        UsageError, also for an empty text, which would remove nothing."""
        try:
            data = plain_yaml.parse(text if isinstance(text, str) else text.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{origin} is not UTF-8 text (byte {error.start}); save it as UTF-8."
            ) from None
        except ValueError as error:
            raise UsageError(f"{origin} is not valid YAML: {one_line(error)}.") from None
        if data is None:
            raise UsageError(f"{origin} is empty; see the README's example.")
        return cls.parse(data, origin)

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a YAML file; raises UsageError."""
        try:
            with open(path, "rb") as file:
                text = file.read(4 * plain_yaml.LARGEST + 1)  # a character has at most 4 bytes
        except (OSError, ValueError) as error:
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
