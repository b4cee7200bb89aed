"""What an experiment gave, and its files: CSV, JSON, Markdown and one page of HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pruning.artifacts.cell import Cell
from pruning.utils.csv_text import as_csv
from pruning.utils.files import write_bytes
from pruning.utils.templates import rendered

PAGE = Path(__file__).with_name("result.html.j2")
Value = str | int | float | None
ACCURACIES = ("boolq", "piqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
SHARES = (*ACCURACIES, "mean", "kept")


@dataclass(frozen=True)
class Result:
    """``rows`` have the keys ``columns``; a key that starts with "paper " holds the paper's value,
    one that ends with " ±" a standard error. ``texts``: those that are perplexities. ``cells``:
    that of each row, where it has one. ``drawings``: charts as SVG."""

    name: str
    title: str
    model: str
    paper_model: str | None
    quick: bool
    shows: str
    protocol: str
    notes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Value], ...]
    texts: tuple[str, ...] = ()
    cells: tuple[Cell | None, ...] = ()
    drawings: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        return f"{self.title}: {self.model}{', quick run' if self.quick else ''}"

    def remarks(self) -> list[str]:
        """What belongs beside the table, first what was scaled down."""
        quick = "A quick run: less text and fewer samples than the paper's; see the protocol."
        paper = "The paper's values are not shown: this is none of its models."
        shown = [quick] if self.quick else []
        theirs = (
            f"The paper's values for {self.paper_model} stand beside ours, in brackets or as "
            "paper, and are grey in the charts."
        )
        shown.append(theirs if self.paper_model else paper)
        return [*shown, self.shows, self.protocol, *self.notes]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, each row with its whole cell: recipe, seed, versions, protocol."""
        rows: list[dict[str, Any]] = [dict(row) for row in self.rows]
        for row, cell in zip(rows, self.cells, strict=False):
            row["cell"] = None if cell is None else cell.as_dict()
        names = ("name", "title", "model", "paper_model", "quick", "columns")
        about = {name: getattr(self, name) for name in names}
        return {**about, "remarks": self.remarks(), "rows": rows}

    def to_csv(self) -> str:
        return as_csv(self.rows, self.columns)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Heads and cells for people: errors stand beside their values, the paper's in brackets."""
        names = [name for name in self.columns if _own(name)]
        return names, [[_shown(row, name) for name in names] for row in self.rows]

    def to_markdown(self) -> str:
        names, rows = self.table()
        lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        remarks = "\n".join(f"- {remark}" for remark in self.remarks() if remark)
        return f"# {self.heading}\n\n" + "\n".join(lines) + f"\n\n{remarks}\n"

    def to_html(self) -> str:
        """One file that asks for nothing from anywhere: charts are inline SVG."""
        names, rows = self.table()
        drawings = [Markup(drawing) for drawing in self.drawings]
        return rendered(PAGE, result=self, names=names, rows=rows, drawings=drawings)

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=1, allow_nan=False)

    def write(self, folder: Path) -> list[Path]:
        """``NAME.csv``, ``.json``, ``.md`` and ``.html`` in ``folder``; raises HeadroomError."""
        makers = {
            "csv": self.to_csv,
            "json": self.to_json,
            "md": self.to_markdown,
            "html": self.to_html,
        }
        for suffix, make in makers.items():
            write_bytes(folder / f"{self.name}.{suffix}", make().encode())
        return [folder / f"{self.name}.{suffix}" for suffix in makers]


def joined(results: Sequence[Result]) -> Result:
    """The same experiment on several models as one: a column says which."""
    if len(results) == 1:
        return results[0]
    rows = [{"model": found.model, **row} for found in results for row in found.rows]
    cells = [cell for found in results for cell in found.cells]
    protocols = dict.fromkeys(found.protocol for found in results)
    return replace(
        results[0],
        model=", ".join(found.model for found in results),
        protocol=" ".join(protocols),
        columns=("model", *results[0].columns),
        rows=tuple(rows),
        cells=tuple(cells),
        drawings=tuple(drawing for found in results for drawing in found.drawings),
    )


def _own(name: str) -> bool:
    return not name.startswith("paper ") and not name.endswith(" ±")


def _shown(row: Mapping[str, Value], name: str) -> str:
    text = shown(name, row.get(name))
    error = row.get(f"{name} ±")
    if isinstance(error, float):
        text += f" ± {error:.1%}"
    paper = row.get(f"paper {name}")
    return text if paper is None else f"{text} ({shown(name, paper)})"


def shown(name: str, value: Value) -> str:
    """A value as people read it."""
    if value is None:
        return "–"
    if isinstance(value, float):
        if name in SHARES:
            return f"{value:.1%}"
        return f"{value:,.0f}" if abs(value) >= 10000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else value


def protocol_of(cells: Sequence[Cell]) -> str:
    """The protocols of all numbers in a grid, once each."""
    found: dict[str, None] = {}
    for cell in cells:
        for text in cell.texts:
            found[text.protocol] = None
        if cell.zero_shot is not None:
            found[cell.zero_shot.protocol()] = None
    timed = [cell.latency.protocol() for cell in cells if cell.latency is not None]
    found |= dict.fromkeys(timed)
    return " ".join(found)
