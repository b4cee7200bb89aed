"""The recipe: everything that determines a pruned model, validated once at the boundary."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from pruning.artifacts import fields
from pruning.artifacts.provenance import SECTION as PROVENANCE_SECTION
from pruning.artifacts.recovery_rule import RecoveryRule
from pruning.artifacts.rules import (
    BlockRange,
    BlockRule,
    Budget,
    Calibration,
    FfnRule,
    HeadRule,
    Marks,
    ModelChoice,
)
from pruning.artifacts.tune_rule import TuneRule
from pruning.utils import plain_yaml
from pruning.utils.errors import UsageError, one_line, short_repr, shortened

RECIPE_VERSION: Literal[1] = 1


class Recipe(fields.Strict):
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
    allocation: fields.AllocationName = fields.setting(
        "uniform", "Sparsity allocation", "choosing", registry="allocations"
    )
    """Where the size is taken: how much each block and module loses."""
    by_hand: dict[Annotated[int, Field(ge=0)], BlockRule] = {}
    marks: dict[Annotated[int, Field(ge=0)], Marks] = {}
    recovery: RecoveryRule = RecoveryRule()
    tune: TuneRule = TuneRule()
    seed: int = fields.setting(0, "Seed", "calibration", ge=0, lt=2**31)
    """Decides which windows are sampled. Same recipe and seed, same result."""

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
            data[name] = {**data[name], **value} if isinstance(value, dict) else value
        return Recipe.parse(data)

    def to_yaml(self) -> str:
        """YAML that :meth:`from_yaml` reads back to an equal recipe."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)
