"""Where the rows of zero-shot tasks come from: the hub, or JSON Lines files in a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pruning.artifacts.zero_shot import TASK_NAMES, check_installed
from pruning.utils.digest import sha256_of
from pruning.utils.errors import SourceError, UsageError, one_line
from pruning.utils.registry import unknown_name

PREPARED = Path(__file__).parent / "tasks"
"""Definitions of ours, for rows that hold the prompt ready made."""

_READY = frozenset({"query", "choices", "gold"})


@dataclass(frozen=True)
class _Known:
    """One task: its definition below lm_eval's ``tasks``, the fields of its rows on the hub, those
    of ready-made rows, and the names that its file may have."""

    definition: str
    fields: frozenset[str]
    ready: frozenset[str] = _READY
    files: tuple[str, ...] = ()


_ARC = frozenset({"question", "choices", "answerKey"})
_KNOWN = {
    "boolq": _Known("super_glue/boolq/default.yaml", frozenset({"passage", "question", "label"})),
    "piqa": _Known("piqa/piqa.yaml", frozenset({"goal", "sol1", "sol2", "label"})),
    "hellaswag": _Known(
        "hellaswag/hellaswag.yaml",
        frozenset({"activity_label", "ctx_a", "ctx_b", "endings", "label"}),
    ),
    "winogrande": _Known(
        "winogrande/default.yaml",
        frozenset({"sentence", "option1", "option2", "answer"}),
        frozenset({"context_options", "continuation", "gold"}),
    ),
    "arc_easy": _Known("arc/arc_easy.yaml", _ARC),
    "arc_challenge": _Known("arc/arc_challenge.yaml", _ARC),
    "openbookqa": _Known(
        "openbookqa/openbookqa.yaml",
        frozenset({"question_stem", "choices", "answerKey"}),
        files=("openbook_qa",),
    ),
}


@dataclass(frozen=True)
class TaskSource:
    """A task's definition for lm_eval (``yaml``) and where its rows come from (``data``)."""

    name: str
    yaml: str
    data: str


def task_sources(names: Sequence[str], folder: Path | None = None) -> tuple[TaskSource, ...]:
    """The tasks ``names``, with rows from ``folder`` (``NAME.jsonl`` each) or from the hub.

    A file's rows have the fields of the data set on the hub, or hold the prompt ready made:
    ``query``, ``choices`` and ``gold`` (WinoGrande: ``context_options``, ``continuation``,
    ``gold``). Nothing is downloaded yet.
    Raises UsageError for names, HeadroomError without lm_eval, SourceError for files.
    """
    if not names:
        raise UsageError(f"No task is named; choose some of: {', '.join(TASK_NAMES)}.")
    for name in names:
        if name not in _KNOWN:
            raise unknown_name("task", name, TASK_NAMES)
    if len(set(names)) < len(names):
        raise UsageError("A task is named twice; name each once.")
    check_installed()
    if folder is not None and not folder.is_dir():
        raise SourceError(f"{folder} is no folder; name one that holds {names[0]}.jsonl.")
    return tuple(_from_hub(n) if folder is None else _from_file(n, folder) for n in names)


def lm_eval_version() -> str:
    return version("lm_eval")


def _from_hub(name: str) -> TaskSource:
    return TaskSource(name, _yaml({"include": _theirs(name), "task": name}), "hub")


def _from_file(name: str, folder: Path) -> TaskSource:
    known = _KNOWN[name]
    places = [folder / f"{stem}.jsonl" for stem in (name, *known.files)]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise SourceError(
            f"{folder} holds no {places[0].name}; put the task's rows there, or leave the folder "
            "out to read them from the Hugging Face hub."
        )
    content = _content(path)
    rows = [_row(path, number, line) for number, line in enumerate(content, start=1) if line]
    if not rows:
        raise SourceError(f"{path} holds no rows; put the task's items there, one a line.")
    fields = _layout(path, rows[0], known)
    for number, row in enumerate(rows, start=1):
        _check_row(path, number, row, fields)
    theirs = fields == known.fields
    definition = {
        "include": _theirs(name) if theirs else str(PREPARED / f"{name}.yaml"),
        "task": name,
        "dataset_path": "json",
        "dataset_name": None,
        "training_split": None,
        "validation_split": "validation",
        "test_split": None,
        "fewshot_split": None,
        "dataset_kwargs": {"data_files": {"validation": str(path.resolve())}},
    }
    digest = sha256_of(["\n".join(content).encode()], 12)
    return TaskSource(name, _yaml(definition), f"{path.name} ({len(rows)} rows, {digest})")


def _theirs(name: str) -> str:
    (place,) = find_spec("lm_eval").submodule_search_locations  # type: ignore[union-attr,misc]
    return str(Path(place) / "tasks" / _KNOWN[name].definition)


def _yaml(definition: dict[str, Any]) -> str:
    # JSON is YAML
    return json.dumps(definition, indent=1)


def _content(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {one_line(error, 100)}.") from None


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise SourceError(f"{path} is no JSON object in line {number}; repair that line.")
    return row


def _layout(path: Path, row: dict[str, Any], known: _Known) -> frozenset[str]:
    """The fields that the rows of a file must have, by its first row."""
    for fields in (known.ready, known.fields):
        if fields <= row.keys():
            return fields
    raise SourceError(
        f"The rows of {path} have neither {', '.join(sorted(known.fields))} nor "
        f"{', '.join(sorted(known.ready))}; convert the file to one of these."
    )


def _check_row(path: Path, number: int, row: dict[str, Any], fields: frozenset[str]) -> None:
    missing = sorted(fields - row.keys())
    if missing:
        raise SourceError(f"Row {number} of {path} has no {missing[0]}; repair that row.")
    answers, gold = row.get("choices", row.get("context_options")), row.get("gold")
    if "gold" in fields and (
        not isinstance(answers, list) or type(gold) is not int or not 0 <= gold < len(answers)
    ):
        raise SourceError(f"Row {number} of {path}: gold must be the place of the right answer.")
