"""Where a saved run came from, kept beside its recipe so that a second run can say what differs.

It never influences a run: the recipe alone does.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from pruning.utils import plain_yaml
from pruning.utils.errors import UsageError, one_line

SECTION = "provenance"


class Provenance(BaseModel):
    """``model_weights`` and ``corpus`` are fingerprints; ``versions`` those of the libraries;
    ``seed`` that of the run; ``products`` the autocast dtype of the passes of recovery, which
    the recipe may leave to the hardware (both None in files of before they were recorded)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    model_revision: str | None = None
    model_weights: str
    corpus: str
    seed: int | None = None
    device: str
    products: str | None = None
    versions: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Provenance | None:
        """The section of a recipe file, or None when it has none; raises UsageError."""
        try:
            data = plain_yaml.parse(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"The recipe {path} cannot be read: {one_line(error)}.") from None
        section = data.get(SECTION) if isinstance(data, dict) else None
        if section is None:
            return None
        try:
            return cls.model_validate(section)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise UsageError(
                f"The recipe {path} has a damaged provenance section at {where or SECTION}; "
                "remove the section."
            ) from None

    def to_yaml(self) -> str:
        """A section for the end of a recipe file."""
        return yaml.safe_dump({SECTION: self.model_dump()}, sort_keys=False, allow_unicode=True)

    def differences(self, now: Provenance) -> list[str]:
        """Phrases, one for each thing that was not so when this was recorded."""
        changes: list[str] = []
        if self.model_weights != now.model_weights:
            was, is_ = self.model_revision, now.model_revision
            revisions = f" (revision {was} then, {is_} now)" if was != is_ else ""
            changes.append(f"the model's weights{revisions}")
        elif self.model_revision != now.model_revision:
            changes.append(f"the revision ({self.model_revision} then, {now.model_revision} now)")
        if self.corpus != now.corpus:
            changes.append("the calibration tokens")
        if self.seed is not None and self.seed != now.seed:
            changes.append(f"the seed ({self.seed} then, {now.seed} now)")
        if self.device != now.device:
            changes.append(f"the device ({self.device} then, {now.device} now)")
        if self.products is not None and self.products != now.products:
            changes.append(f"the autocast dtype ({self.products} then, {now.products} now)")
        for name in sorted(self.versions.keys() | now.versions.keys()):
            then, today = self.versions.get(name, "none"), now.versions.get(name, "none")
            if then != today:
                changes.append(f"{name} ({then} then, {today} now)")
        return changes
