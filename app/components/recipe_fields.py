"""Widgets for fields of the draft recipe, built from what the fields declare.

The recipe says of a field its title, description, bounds and how a form shows it; this module
turns that into a widget. Where a field names an entry of a registry, the entry's ``parameters``
(fields that matter only with it) follow. A new field, entry or parameter needs no edit here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache, partial
from operator import attrgetter
from typing import Any, Literal, get_args, get_origin

import streamlit as st
from pydantic.fields import FieldInfo

from app.components.widgets import choose, corpus_options, drafted
from app.session import state
from pruning.artifacts.recipe import Recipe
from pruning.registries import KINDS

Bind = Callable[..., Any]
"""``bind(widget, label, **options)``: the widget, bound to the field."""


def show_group(group: str, hide: Collection[str] = ()) -> None:
    """Every field that the recipe declares for ``group`` of the form, each once."""
    shown = set(hide)
    for path in declared(group):
        for each in (path, *parameters(path)):
            if each not in shown:
                shown.add(each)
                show_field(each)


def declared(group: str) -> list[str]:
    """Paths such as ``heads.score`` of the fields of ``group``, as the recipe orders them."""
    return [path for path, info in _fields().items() if _form(info).get("group") == group]


def parameters(path: str) -> tuple[str, ...]:
    """Fields that the entry named by the field at ``path`` declares as its own."""
    registry = KINDS.get(_form(_fields()[path]).get("registry"))
    if registry is None:
        return ()
    return tuple(getattr(registry[_value(path)], "parameters", ()))


def show_field(path: str) -> None:
    """The widget of one field."""
    info = _fields()[path]
    form, title, text = _form(info), info.title or path, info.description
    section, _, name = path.rpartition(".")
    bind = partial(drafted, section=section or None, field=name)
    if form.get("registry") in KINDS:
        choose(title, KINDS[form["registry"]], section or None, name, intro=text or "")
    elif "auto" in form:
        _automatic(path, info, bind)
    elif get_origin(info.annotation) is Literal:
        titles = form.get("choices", {})
        bind(
            st.selectbox,
            title,
            options=list(titles) or list(get_args(info.annotation)),
            format_func=lambda value: titles.get(value, value),
            help=text,
        )
    elif info.annotation is bool:
        bind(st.toggle, title, help=text)
    elif form.get("percent"):
        low, high = _bounds(info.metadata, 0.01)
        options = {"min_value": low, "max_value": high, "step": 0.01}
        bind(st.slider, title, format="percent", help=text, **options)
    else:
        _number(bind, title, info.annotation, info.metadata, form, help=text)


def calibration_fields() -> None:
    """The text that the draft measures and repairs on."""
    source = state.draft_recipe().calibration.source
    drafted(st.selectbox, "Corpus", "calibration", "source", **corpus_options(chosen=source))
    paths = declared("calibration")
    for column, path in zip(st.columns(len(paths)), paths, strict=True):
        with column:
            show_field(path)


def _automatic(path: str, info: FieldInfo, bind: Bind) -> None:
    """A switch for ``auto`` and, where it is off, the number."""
    form = _form(info)
    bind(
        st.toggle,
        form["auto"],
        shown=lambda value: value == "auto",
        stored=lambda on: "auto" if on else form["start"],
        help=info.description,
    )
    if _value(path) != "auto":
        number = next(part for part in get_args(info.annotation) if get_origin(part) is not Literal)
        kind, bounds = get_args(number)
        _number(bind, info.title or path, kind, bounds.metadata, form)


def _number(
    bind: Bind, title: str, kind: Any, bounds: Collection[Any], form: Mapping[str, Any], **more: Any
) -> None:
    digits = form.get("digits")
    low, high = _bounds(bounds, 1 if digits is None else 10.0**-digits)
    bind(
        st.number_input,
        title,
        min_value=low,
        max_value=high,
        step=form.get("step", 1),
        format=None if digits is None else f"%.{digits}f",
        placeholder=form.get("empty"),
        **more,
    )


def _bounds(metadata: Collection[Any], nearest: Any) -> tuple[Any, Any]:
    """Least and largest value; ``nearest`` is how close to a bound that is excluded one may go."""
    low = high = None
    for bound in metadata:
        low = getattr(bound, "ge", low)
        high = getattr(bound, "le", high)
        low = bound.gt + nearest if hasattr(bound, "gt") else low
        high = bound.lt - nearest if hasattr(bound, "lt") else high
    return low, high


@cache
def _fields() -> dict[str, FieldInfo]:
    """Every field of the recipe by its path."""
    fields = {}
    for name, info in Recipe.model_fields.items():
        nested = getattr(info.annotation, "model_fields", None)
        parts = {f"{name}.{field}": part for field, part in nested.items()} if nested else {}
        fields |= parts or {name: info}
    return fields


def _form(info: FieldInfo) -> Mapping[str, Any]:
    return info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}


def _value(path: str) -> Any:
    return attrgetter(path)(state.draft_recipe())
