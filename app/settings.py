"""What whoever runs the app decides, from the environment: ``HEADROOM_`` and the field's name.

Read at every use, so that nothing is kept; ``app/README.md`` has the table.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pruning.utils.errors import UsageError, short_repr

PREFIX = "HEADROOM_"
GB = 10**9


def _listed(mark: str) -> BeforeValidator:
    def split(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(mark) if part.strip())

    return BeforeValidator(split)


class Settings(BaseModel):
    """Limits and places. Sizes in GB of 10^9 bytes; the defaults suit one trusted group on one
    machine."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    roots: Annotated[tuple[Path, ...], _listed(os.pathsep)] = Field(
        (), description="folders that visitors may name; none: the working folder"
    )
    models: Annotated[tuple[str, ...], _listed(",")] = Field(
        ("*",), description="patterns of the models that may be loaded, such as demo,google/*"
    )
    model_gb: float = Field(64.0, gt=0, description="largest model that is loaded")
    memory_gb: float | None = Field(
        None, gt=0, description="memory of the machine that models are kept within"
    )
    downloads_gb: float = Field(50.0, gt=0, description="prepared downloads, together")
    download_minutes: float = Field(120.0, ge=1, description="how long one is kept unused")
    jobs_per_visitor: int = Field(8, ge=1, description="waiting or at work at once")
    jobs: int = Field(100, ge=1, description="the same of all visitors")
    grace_minutes: float = Field(30.0, ge=1, description="how long work goes on unwatched")
    preload: bool = Field(True, description="whether the embedded model is loaded unasked")
    task_data: Path | None = Field(
        None, description="folder with the rows of the zero-shot tasks; none: the hub"
    )
    save: bool = Field(True, description="whether visitors may write models below the roots")

    def folders(self) -> list[Path]:
        """The roots, resolved."""
        return [path.expanduser().resolve() for path in self.roots] or [Path.cwd().resolve()]

    def check_model(self, source: str) -> None:
        """Raise UsageError for a model that is not on the list; paths are listed as they are named
        or in full."""
        names = {source}
        if source.startswith((".", "/", "~")) or Path(source).expanduser().exists():
            # only where it leads counts: "models/../other" is not in "models/*"
            names = {str(Path(source).expanduser().resolve())}
            names |= {os.path.relpath(name) for name in names}
        if source == "demo":
            names = {source}
        if not any(fnmatchcase(name, pattern) for name in names for pattern in self.models):
            raise UsageError(
                f"{short_repr(source)} may not be loaded on this server; choose from "
                f"{', '.join(self.models)[:120]}."
            )

    def check_size(self, source: str, size: int) -> None:
        """Raise UsageError for a model of more bytes than are allowed."""
        if size > self.model_gb * GB:
            raise UsageError(
                f"{short_repr(source)} takes {size / GB:.1f} GB, and this server loads models of "
                f"up to {self.model_gb:g} GB; choose a smaller one, or bfloat16."
            )


def current(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this moment; raises UsageError that names the variable."""
    given = {
        name: environment[variable]
        for name in Settings.model_fields
        if (environment.get(variable := f"{PREFIX}{name.upper()}") or "").strip()
    }
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise UsageError(
            f"{PREFIX}{name.upper()}={short_repr(given[name])} cannot be used: {first['msg']}; "
            f"leave it out for {Settings.model_fields[name].default!r}."
        ) from None
