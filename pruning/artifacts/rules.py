"""The sections of a recipe: text, blocks, heads, FFN, budget and marks."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pruning.artifacts import fields

LN2 = math.log(2.0)

Bos = Literal["auto", "every", "first", "none"]


COMPUTED_IN = "float32"
"""What a model is computed in where no dtype is asked for."""


class ModelChoice(fields.Strict):
    """``source``: ``demo``, a hub id, a folder or a ``.gguf`` file. ``dtype``: what is computed and
    saved in (``auto``: that of the files); None: computed in float32, saved in that of the files.
    """

    source: fields.Source = "demo"
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None


class Calibration(fields.Strict):
    """Windows of text that the measurement and the recovery see.

    ``source``: a corpus name or a path.
    ``text_field``: column of a JSON or parquet file (None: the first of its usual names).
    ``bos``: the beginning-of-sequence token leads ``every`` window, the text (``first``) or none;
    ``auto`` is every where the tokenizer adds one by default, else none.
    ``gradient_*``: for the gradient pass, which only some criteria need; its windows are never
    longer than the model's positions.
    """

    source: fields.Source = "sample"
    text_field: str | None = Field(None, min_length=1, max_length=200)
    bos: Bos = "auto"
    samples: int = fields.windows(32, "Samples", "calibration", step=8)
    """Windows of text. More give steadier decisions and take longer."""
    seq_len: int = fields.tokens(128, "Tokens each", "calibration")
    """Length of one window in tokens; 128 is the usual choice for Llama models."""
    curve_samples: int | None = fields.windows(
        None, "Samples of the loss curves", "curves", step=8, empty="as for recovery"
    )
    """Windows of text that loss curves are measured on, from which the allocation takes its widths.
    Fewer are quicker; empty means as many as the recovery is fitted to."""
    gradient_samples: int = fields.windows(10, "Samples of the gradient pass", "gradients", step=2)
    """Windows of text that gradients are taken on; LLM-Pruner takes 10."""
    gradient_seq_len: int = fields.tokens(64, "Tokens of each", "gradients")
    """Length of one such window in tokens; LLM-Pruner takes 64."""


class BlockRange(fields.Strict):
    """Blocks ``[start, end)`` may be cut; ``end`` of None means the last block is included."""

    start: int = Field(0, ge=0)
    end: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> BlockRange:
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"the end ({self.end}) must be greater than the start ({self.start})")
        return self


class HeadRule(fields.Strict):
    """Which attention heads go.

    ``threshold`` is τ of Algorithm 2 in nats (None: similarity is not used). ``policy`` under
    grouped-query attention: whole key/value groups, the same number of query heads from every
    group, any heads of an ungrouped block, or whichever of these loses least.
    """

    threshold: float | None = Field(None, gt=0.0, le=LN2)
    ratio: fields.Ratio = fields.share("Heads to remove")
    """Share of attention heads that must go in each block. What similarity did not remove is filled
    up with the heads that the criterion ranks lowest."""
    score: fields.CriterionName = fields.criterion("second_moment", "Criterion for heads")
    """How much a unit matters; the lowest go first."""
    policy: fields.HeadPolicyName = fields.setting(
        "query", "Grouped queries", "choosing", registry="head_policies"
    )
    """In this model several query heads share one key/value head. Whole groups can go, or the same
    number of query heads from every group; or the block is rewritten so that any heads can go,
    where that still saves parameters."""
    drop: Literal["first", "weaker"] = fields.choice(
        "weaker",
        "Of two heads that are alike, remove",
        "choosing",
        weaker="The weaker one, by criterion",
        first="The first one (paper's Algorithm 2)",
    )
    """Matters only when similarity is on."""


class FfnRule(fields.Strict):
    """Which FFN channels go."""

    ratio: fields.Ratio = fields.share("FFN channels to remove")
    """Share of the feed-forward network's inner channels that go in each block, those that the
    criterion ranks lowest."""
    score: fields.CriterionName = fields.criterion(
        "second_moment_exact", "Criterion for FFN channels"
    )
    """How much a unit matters; the lowest go first."""
    multiple: int = fields.setting(
        1, "Round FFN widths to a multiple of", "choosing", ge=1, le=1024, step=8
    )
    """Hardware runs odd widths slowly; 64 or 128 suits most."""


class Budget(fields.Strict):
    """What may be left of the whole model; it then takes the place of the two ratios.

    ``kept``: share of the parameters, ``of`` the Transformer blocks or of the whole model.
    ``megabytes``: size of the whole model's weights as they are saved, in 10^6 bytes. Give one.
    """

    kept: float | None = Field(None, gt=0.0, le=1.0)
    of: Literal["blocks", "model"] = "blocks"
    megabytes: float | None = Field(None, gt=0.0)
    spare_heads: bool = fields.setting(False, "Only FFN channels", "budget")
    """Every head stays; all of the size is taken from the FFN. Heads hold few parameters, and with
    little calibration text they are the harder part to repair."""

    @model_validator(mode="after")
    def _one(self) -> Budget:
        if self.kept is not None and self.megabytes is not None:
            raise ValueError("give either the share that is kept or megabytes, not both")
        return self

    @property
    def given(self) -> bool:
        return self.kept is not None or self.megabytes is not None


class BlockRule(fields.Strict):
    """Ratios of one block when the allocation is ``by_hand``."""

    heads: fields.Ratio = 0.0
    ffn: fields.Ratio = 0.0


class Marks(fields.Strict):
    """Heads of one block that a person marked, in order; they win over every criterion."""

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
