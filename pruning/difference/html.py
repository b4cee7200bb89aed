"""A difference as one page of HTML that asks for nothing from anywhere; its tables sort."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pruning.artifacts.difference import Difference
from pruning.utils.templates import rendered

SHARES = {"kept", "attention change", "FFN change", "change", "output error"}
SORT = """
document.querySelectorAll("th").forEach(head => head.addEventListener("click", () => {
  const place = head.cellIndex, body = head.closest("table").tBodies[0];
  const down = head.ariaSort !== "descending";
  const value = row => {
    const cell = row.cells[place];
    return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
  };
  const order = (a, b) => a === b ? 0 : (a === "–") - (b === "–") || (a < b ? -1 : 1);
  const rows = [...body.rows].sort((a, b) => (down ? -1 : 1) * order(value(a), value(b)));
  head.parentNode.querySelectorAll("th").forEach(other => other.ariaSort = "none");
  head.ariaSort = down ? "descending" : "ascending";
  body.append(...rows);
}));
"""
"""Sorts a table by the column whose head is clicked; the browser runs no other script."""


def to_html(difference: Difference) -> str:
    """The page."""
    digest = base64.b64encode(hashlib.sha256(SORT.encode()).digest()).decode()
    return rendered(
        Path(__file__).with_name("difference.html.j2"),
        {"cell": _cell},
        found=difference,
        tables={
            "Block by block": _filled(difference.block_rows()),
            "Tensor by tensor": _filled(difference.tensor_rows()),
        },
        sort=Markup(SORT),
        digest=digest,
    )


def _filled(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """``rows`` without columns in which nothing stands."""
    names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    return [{name: row[name] for name in names} for row in rows]


def _cell(value: Any, name: str) -> Markup:
    """A cell; a share has a bar behind it, as long as it is large."""
    if value is None:
        return Markup("<td>–</td>")
    if isinstance(value, str):
        return Markup('<td class="words">{}</td>').format(value)
    if name not in SHARES:
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
        return Markup('<td data-value="{}">{}</td>').format(value, shown)
    bar = "" if name == "kept" and value == 1.0 else f"--share:{min(max(value, 0.0), 1.0):.1%}"
    return Markup('<td data-value="{}" style="{}">{}</td>').format(value, bar, f"{value:.2%}")
