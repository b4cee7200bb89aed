"""Accuracy on zero-shot tasks, with everything that the figures depend on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import FiniteFloat

from pruning.artifacts.stored import Stored
from pruning.utils.errors import SourceError

TASK_NAMES = ("boolq", "piqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
"""The seven tasks of the field's tables, in their order, by lm_eval's names."""

TASK_SIZES = {
    "boolq": (3270, 150),
    "piqa": (1838, 70),
    "hellaswag": (10042, 190),
    "winogrande": (1267, 45),
    "arc_easy": (2376, 105),
    "arc_challenge": (1172, 160),
    "openbookqa": (500, 60),
}
"""Items of each task on the hub, and about how many tokens are read for one of them with all its
answers (mean over 40 items with the embedded model's tokenizer)."""

Metric = Literal["acc", "acc_norm"]


def task_tokens(names: Sequence[str], limit: int | None) -> int:
    """About how many tokens are read for the first ``limit`` items (None: all) of each task."""
    sizes = [TASK_SIZES[name] for name in names]
    return sum(min(items, limit or items) * tokens for items, tokens in sizes)


def check_installed() -> None:
    """Raise SourceError, which says what to install, where lm_eval is not there."""
    if find_spec("lm_eval") is None:
        raise SourceError("Zero-shot tasks need lm_eval; run: pip install 'headroom[eval]'.")


@dataclass(frozen=True)
class TaskScore:
    """``items`` of ``available`` were answered. ``accuracy`` is that of ``metric``: ``acc_norm``
    (likelihoods divided by the answers' length in characters) where the task has it, else ``acc``;
    ``plain_accuracy`` is always ``acc``. Standard errors are None for a single item. ``version``:
    the task's own; ``data``: the data set of the hub, or a file and its digest."""

    task: str
    metric: Metric
    accuracy: FiniteFloat
    stderr: FiniteFloat | None
    plain_accuracy: FiniteFloat
    plain_stderr: FiniteFloat | None
    items: int
    available: int
    version: str
    data: str


@dataclass(frozen=True)
class ZeroShot:
    """Scores of one model. ``limit``: items per task that were asked for (None: all);
    ``versions`` of lm_eval and of what else can change a result."""

    model: str
    dtype: str
    device: str
    limit: int | None
    batch_size: int
    seconds: FiniteFloat
    versions: dict[str, str]
    scores: tuple[TaskScore, ...]

    @property
    def mean(self) -> float:
        """Mean accuracy over the tasks, each counted once."""
        return sum(score.accuracy for score in self.scores) / len(self.scores)

    @property
    def mean_stderr(self) -> float | None:
        """Standard error of :attr:`mean`, the tasks' items being independent."""
        errors = [score.stderr for score in self.scores if score.stderr is not None]
        if len(errors) < len(self.scores):
            return None
        return math.sqrt(sum(error**2 for error in errors)) / len(errors)

    def protocol(self) -> str:
        """The sentence that belongs beside the numbers."""
        some = "all items" if self.limit is None else f"the first {self.limit} items of each task"
        tasks = ", ".join(f"{score.task} {score.version}" for score in self.scores)
        return (
            f"lm_eval {self.versions.get('lm_eval', '')}, zero-shot, {some}; tasks {tasks}; "
            f"acc_norm where a task has it, else acc; {self.dtype}, batches of {self.batch_size}."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data, with the mean."""
        derived = {"mean": self.mean, "mean_stderr": self.mean_stderr, "protocol": self.protocol()}
        return {**_STORED.plain(self), **derived}

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, origin: str = "The zero-shot report") -> ZeroShot:
        """Read :meth:`to_json` back; raises SourceError in one line when it is damaged."""
        return _STORED.read(text, origin)


_STORED = Stored(
    ZeroShot,
    wrong="is damaged",
    advice="evaluate again",
    header={"version": 1},
    refusal=SourceError,
    derived=("mean", "mean_stderr", "protocol"),
)


def markdown(reports: Sequence[ZeroShot]) -> str:
    """A row per model, a column per task (in %, ± one standard error), and the protocol."""
    names = [score.task for score in reports[0].scores]
    rows = ["| model | " + " | ".join([*names, "mean"]) + " |", "|---" * (len(names) + 2) + "|"]
    for report in reports:
        cells = [percent(score.accuracy, score.stderr) for score in report.scores]
        cells.append(percent(report.mean, report.mean_stderr))
        rows.append(f"| {report.model} | " + " | ".join(cells) + " |")
    return "\n".join([*rows, "", reports[0].protocol()])


def percent(value: float, stderr: float | None) -> str:
    """``61.2% ± 1.4%``."""
    return f"{value:.1%}" if stderr is None else f"{value:.1%} ± {stderr:.1%}"
