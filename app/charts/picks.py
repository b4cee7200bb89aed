"""What was clicked: every clickable point carries one id such as ``head:7`` in ``customdata``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def point_id(kind: str, *numbers: int) -> str:
    """The id of a point, for example ``pair:3:7``."""
    return ":".join([kind, *map(str, numbers)])


def picked(event: Any, kind: str) -> tuple[int, ...] | None:
    """Numbers of the first clicked point of ``kind`` in a selection event; None without one."""
    selection = event.get("selection") if isinstance(event, Mapping) else None
    for point in (selection or {}).get("points", []):
        data = point.get("customdata")
        data = data[0] if isinstance(data, (list, tuple)) and data else data
        name, *numbers = str(data).split(":")
        if name == kind and all(number.isdigit() for number in numbers):
            return tuple(int(number) for number in numbers)
    return None
