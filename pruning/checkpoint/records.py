"""What a saved model carries about its making: recipe, plan, report, evaluation."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pruning.artifacts.plan import Plan
from pruning.artifacts.provenance import Provenance
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.report import Report
from pruning.models.fingerprint import fingerprint
from pruning.models.loading.guarded import guarded
from pruning.surgery.result import PruneRun
from pruning.utils.errors import SourceError, one_line
from pruning.utils.precision import autocast_name

MARKER = "recipe.yaml"
PLAN, REPORT, EVALUATION = "plan.json", "report.json", "evaluation.json"


@dataclass(frozen=True)
class Evaluation:
    """Perplexity of the dense and the pruned model on the same windows (``protocol``)."""

    before: float
    after: float
    protocol: str


@dataclass(frozen=True)
class Records:
    """``evaluation`` and ``provenance`` may be missing."""

    recipe: Recipe
    plan: Plan
    report: Report
    provenance: Provenance | None
    evaluation: Evaluation | None

    @classmethod
    def of(cls, run: PruneRun, evaluation: Evaluation | None = None) -> Records:
        """The records of a finished run."""
        return cls(run.recipe, run.plan, run.report, provenance_of(run), evaluation)

    def write(self, folder: Path) -> None:
        """Write one file each; raises OSError."""
        recipe = self.recipe.to_yaml()
        if self.provenance is not None:
            recipe += self.provenance.to_yaml()
        (folder / MARKER).write_text(recipe, encoding="utf-8")
        (folder / PLAN).write_text(self.plan.to_json(), encoding="utf-8")
        (folder / REPORT).write_text(self.report.to_json(), encoding="utf-8")
        if self.evaluation is not None:
            text = json.dumps(asdict(self.evaluation), indent=1)
            (folder / EVALUATION).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Records:
        """Read a folder saved by Headroom; raises SourceError, UsageError in one line."""
        texts = {}
        for name in (MARKER, PLAN, REPORT):
            try:
                texts[name] = (folder / name).read_text(encoding="utf-8")
            except FileNotFoundError:
                raise SourceError(
                    f"{folder} has no {name}; name a folder that 'prune' or 'save' made."
                ) from None
            except (OSError, UnicodeDecodeError) as error:
                raise SourceError(f"{folder / name} cannot be read: {error}.") from None
        recipe = Recipe.from_yaml(texts[MARKER], f"The recipe {folder / MARKER}")
        report = Report.from_json(texts[REPORT], str(folder / REPORT))
        if Recipe.parse(report.recipe) != recipe:
            raise SourceError(
                f"{folder / MARKER} is not the recipe of this run, which {REPORT} records as well; "
                "copy the folder again, and keep a changed recipe elsewhere."
            )
        return cls(
            recipe,
            Plan.from_json(texts[PLAN], f"The plan {folder / PLAN}"),
            report,
            Provenance.read(folder / MARKER),
            _evaluation(folder / EVALUATION),
        )


def provenance_of(run: PruneRun) -> Provenance:
    """What a finished run was made from."""
    report = run.report
    return Provenance(
        model=run.dense.source,
        model_revision=run.dense.revision,
        model_weights=fingerprint(run.dense.model),
        corpus=report.corpus_fingerprint,
        seed=report.seed,
        device=report.device.split(":")[0],
        products=autocast_name(run.recipe.recovery.compute, run.dense.model),
        versions=report.versions,
    )


def plan_beside(place: str, commit: str | None = None) -> Plan | None:
    """The plan in a model's folder or repository of the hub (at ``commit``), None where there is
    none; raises SourceError, UsageError for one that cannot be read."""
    if commit is not None:
        from transformers.utils.hub import cached_file

        absent = {"_raise_exceptions_for_missing_entries": False}
        found = guarded(place, cached_file, place, PLAN, revision=commit, **absent)
        path = None if found is None else Path(found)
    else:
        path = Path(place).expanduser() / PLAN
    if path is None or not path.is_file():
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {one_line(error)}.") from None
    return Plan.from_json(text, f"The plan {path}")


def _evaluation(path: Path) -> Evaluation | None:
    if not path.is_file():
        return None
    try:
        return Evaluation(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise SourceError(f"{path} is damaged ({error}); remove it.") from None
