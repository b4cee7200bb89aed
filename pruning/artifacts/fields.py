"""How the recipe declares its fields: names and bounds that are checked, and what a form shows."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from pruning.registries import ALLOCATIONS, CRITERIA, HEAD_POLICIES, RECOVERIES, TUNINGS
from pruning.utils.registry import Registry, unknown_name


class Strict(BaseModel):
    """Frozen; refuses unknown fields, NaN and infinity, and true or false as a number or name.
    The text below a field is its help."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Help is one line, however it is wrapped in the source."""
        made = handler(schema)
        for field in handler.resolve_ref_schema(made).get("properties", {}).values():
            if "description" in field:
                field["description"] = " ".join(field["description"].split())
        return made

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        values = value if isinstance(value, list | tuple) else (value,)
        wants_bool = cls.model_fields[info.field_name or ""].annotation is bool
        if not wants_bool and any(isinstance(each, bool) for each in values):
            raise ValueError("true and false are neither a number nor a name")
        return value


def _known(registry: Registry[Any]) -> AfterValidator:
    """Checks that a field names an entry of ``registry``, at the first use of a name."""

    def check(name: str) -> str:
        if name not in registry:
            raise ValueError(str(unknown_name(registry.kind, name, registry.names())).rstrip("."))
        return name

    return AfterValidator(check)


def _path_or_name(source: str) -> str:
    """No system names a file or a repository with such characters."""
    if not source.isprintable() and any(ord(letter) < 32 for letter in source):
        raise ValueError("it holds control characters")
    return source


CriterionName = Annotated[str, _known(CRITERIA)]
HeadPolicyName = Annotated[str, _known(HEAD_POLICIES)]
AllocationName = Annotated[str, _known(ALLOCATIONS)]
RecoveryName = Annotated[str, _known(RECOVERIES)]
TuningName = Annotated[str, _known(TUNINGS)]
Source = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_path_or_name)]
Ratio = Annotated[float, Field(ge=0.0, lt=1.0)]


def setting(default: Any, title: str, group: str, **shown: Any) -> Any:
    """A field that a form shows in its ``group``; the text below it is its help.

    ``shown``: ``ge``, ``le`` and ``lt`` bound the value. The rest, which travels in the JSON
    schema, is what the form needs beyond the type: ``choices`` (titles of a Literal's values),
    ``registry`` (its kind, where the field names an entry), ``step`` and ``digits`` of a number,
    ``percent`` for a share, ``empty`` (what None means), ``auto`` (title of the switch that
    chooses by itself) with the ``start`` value of the other choice.
    """
    bounds = {name: shown.pop(name) for name in ("ge", "le", "lt") if name in shown}
    return Field(default, title=title, json_schema_extra={"group": group, **shown}, **bounds)


def windows(default: int | None, title: str, group: str, **shown: Any) -> Any:
    """A number of windows of text."""
    return setting(default, title, group, ge=1, le=65536, **shown)


def tokens(default: int, title: str, group: str) -> Any:
    """The tokens of a window."""
    return setting(default, title, group, ge=2, le=131072, step=32)


def choice(default: str, title: str, group: str, **choices: str) -> Any:
    """A field with a Literal's values: a title for each of them."""
    return setting(default, title, group, choices=choices)


def share(title: str) -> Any:
    """The :data:`Ratio` of each block that is removed; nothing at first."""
    return setting(0.0, title, "size", percent=True)


def criterion(default: str, title: str) -> Any:
    """A :data:`CriterionName`."""
    return setting(default, title, "choosing", registry="criteria")
