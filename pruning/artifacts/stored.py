"""The JSON form of measurement, plan and report, read and checked by pydantic.

Reading is strict: numbers are not made of text, unknown fields are refused, and whatever is wrong
is told in one sentence.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, make_dataclass
from functools import cached_property
from typing import Annotated, Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, core_schema

from pruning.utils.errors import HeadroomError, short_repr, shortened

T = TypeVar("T")


class Stored(Generic[T]):
    """Writes and reads the dataclass ``kind``, whose fields follow those of ``header``.

    ``header``: constants of the format by name, ``version`` among them where there is one.
    ``wrong``, ``advice``, ``refusal``: a wrong text is refused with "... ``wrong`` (...);
    ``advice``." as a ``refusal``. ``derived``: names that files have besides, for other readers.
    """

    def __init__(
        self,
        kind: type[T],
        *,
        wrong: str,
        advice: str,
        refusal: type[HeadroomError],
        header: dict[str, Any] | None = None,
        derived: Collection[str] = (),
    ) -> None:
        self._kind, self._header, self._derived = kind, header or {}, set(derived)
        self._wrong, self._advice, self._refusal = wrong, advice, refusal
        self._names = [part.name for part in fields(kind)]  # type: ignore[arg-type]

    @cached_property
    def _file(self) -> Any:
        """A dataclass of the header's fields, then those of ``kind``."""
        constants = [(name, Literal[value]) for name, value in self._header.items()]
        header = make_dataclass("Header", constants, frozen=True)
        derived = [(name, Any, None) for name in self._derived]
        return make_dataclass("File", derived, bases=(self._kind, header), frozen=True)

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        """Built at the first use, for it takes a while."""
        return TypeAdapter(self._file)

    def plain(self, value: T) -> dict[str, Any]:
        """``value`` as dicts, tuples, lists and numbers, in the order of the file."""
        parts = {name: getattr(value, name) for name in self._names}
        return self._adapter.dump_python(self._file(**self._header, **parts), exclude=self._derived)

    def read(self, text: str | bytes, origin: str) -> T:
        """What the JSON ``text`` holds; raises the refusal in one sentence about ``origin``."""
        try:
            file = self._adapter.validate_json(text, strict=True, extra="forbid")
        except ValidationError as error:
            raise self._refusal(self._sentence(error, origin)) from None
        return self._kind(**{name: getattr(file, name) for name in self._names})

    def _sentence(self, error: ValidationError, origin: str) -> str:
        first = error.errors(include_url=False)[0]
        if first["loc"] == ("version",) and first["type"] == "literal_error":
            return (
                f"{origin} has version {short_repr(first['input'], 40)}, this Headroom reads "
                f"version {self._header['version']}; {self._advice}."
            )
        return f"{origin} {self._wrong} ({first_problem(error)}); {self._advice}."


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, behind its place: ``blocks.0.ffn.units: Field required``."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return shortened(f"{place}: {message}" if place else message, 160)


class _Floats:
    """Annotates an array: nested lists in JSON, read-only finite float32 in memory."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        schema: CoreSchema = core_schema.float_schema(strict=True)
        for _ in range(self._dimensions):
            schema = core_schema.list_schema(schema, fail_fast=True)
        return core_schema.no_info_after_validator_function(
            _array,
            schema,
            serialization=core_schema.plain_serializer_function_ser_schema(_shortest),
        )


Vector = Annotated[NDArray[np.float32], _Floats(1)]
Matrix = Annotated[NDArray[np.float32], _Floats(2)]


def _array(values: list[Any]) -> NDArray[np.float32]:
    if values and isinstance(values[0], list) and len({len(row) for row in values}) > 1:
        raise ValueError("its rows differ in length")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        array = np.asarray(values, dtype=np.float32)
    if not np.isfinite(array).all():
        raise ValueError("it contains values that are not finite")
    array.setflags(write=False)
    return array


def _shortest(array: NDArray[np.float32]) -> list[Any]:
    """Nested lists of the shortest decimals that read back to the same float32."""
    text = np.asarray(array, np.float32).astype(str)
    return text.astype(np.float64).tolist()
