"""Stand-ins for the engine: pages are tested without loading a model."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from app.jobs.job import Job
from app.session import recipe_link, state, visitor_jobs
from pruning.artifacts.events import ModuleEvent, Progress, stop_if
from pruning.artifacts.plan import Plan
from pruning.artifacts.recipe import Recipe
from pruning.planning import make_plan
from pruning.utils.errors import HeadroomError
from tests.helpers import PATIENCE, ROOT
from tests.helpers.recipes import plain_recipe
from tests.helpers.waiting import wait_for

MAIN = str(ROOT / "app" / "navigation.py")
OWNER = "tester"


def page_file(name: str) -> str:
    """The script of a page, from the folder of the app: a file, or ``page.py`` of a folder."""
    folder = Path(MAIN).parent / "views" / name
    return f"views/{name}/page.py" if folder.is_dir() else f"views/{name}.py"


class FakeReport:
    versions = {"headroom": "0"}
    recovery_check = None
    tuning = None
    remarks = ("Only FFN channels go.",)

    def __init__(self, plan: Plan) -> None:
        self.before, self.after = plan.before, plan.after
        self.kept_block_parameters = plan.kept_block_parameters

    def to_json(self) -> str:
        return "{}"

    def to_markdown(self, heading: str = "#") -> str:
        return f"{heading} What was removed"


@dataclass(frozen=True)
class FakeRun:
    plan: Plan
    report: FakeReport
    dense: object = "dense"
    pruned: object = "pruned"
    events: tuple = ()
    recipe: object = None
    comparison: object = None


def small_recipe() -> Recipe:
    return plain_recipe().changed(
        heads={"threshold": 0.1}, ffn={"ratio": 0.25}, blocks={"start": 2, "end": 4}
    )


def fake_events(plan: Plan) -> list[ModuleEvent]:
    return [
        ModuleEvent(
            index,
            kind,
            module.units,
            module.removed,
            module.removed_groups,
            0.2,
            0.05,
            0.3,
            0.1,
            0.05,
            module,
        )
        for index, block in enumerate(plan.blocks)
        for kind, module in (("attention", block.attention), ("ffn", block.ffn))
        if module.removed
    ]


class Engine:
    """Plays the pruning work: waits at the gate, then ends as told."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.ending: Exception | None = None
        self.recipe = small_recipe()
        self.plan = make_plan(state.demo_measurement(), self.recipe)

    def prune(self, progress, should_cancel):
        for place, event in enumerate(fake_events(self.plan), start=1):
            progress(Progress("prune", place, 4, f"block {event.block} {event.kind}", event))
        while not self.gate.wait(0.01):
            stop_if(should_cancel)
        if self.ending is not None:
            raise self.ending
        return FakeRun(
            self.plan,
            FakeReport(self.plan),
            events=tuple(fake_events(self.plan)),
            recipe=self.recipe,
        )

    def submit(self, ending: Exception | None = None, finish: bool = False) -> Job:
        self.ending = ending
        job = visitor_jobs.manager().submit(
            "prune",
            "Prune demo",
            self.prune,
            owner=OWNER,
            queue_name="cpu",
            storage_bytes=lambda run: {id(run): 1},
            request=self.recipe,
        )
        if finish:
            self.gate.set()
            wait_for(lambda: not job.active)
        else:
            wait_for(lambda: len(job.events) > 0)
        return job


def at_address(script: str = MAIN, **query: str) -> AppTest:
    """The app, or the script of one page, as it opens at an address with this query."""
    at = AppTest.from_file(script, default_timeout=PATIENCE)
    at.query_params.update(query)
    return at.run()


def words(at: AppTest) -> str:
    """Everything a reader sees in plain elements."""
    kinds = (
        at.title,
        at.subheader,
        at.markdown,
        at.caption,
        at.error,
        at.info,
        at.success,
        at.warning,
    )
    return "\n".join(element.value for kind in kinds for element in kind)


def failing(sentence: str) -> HeadroomError:
    return HeadroomError(sentence)


def button(at: AppTest, label: str):
    """The first button with this label."""
    return next(item for item in at.button if item.label == label)


def labelled(widgets: Sequence[Any], label: str) -> Any:
    """The one widget with this label: ``labelled(at.slider, "Block")``."""
    (found,) = (item for item in widgets if item.label == label)
    return found


def draft_of(at: AppTest) -> Recipe:
    """The recipe that the visitor edits, as the page's address has it."""
    if "recipe" not in at.query_params:
        return state.initial_recipe()
    given = at.query_params["recipe"]
    return recipe_link.decode(given[0] if isinstance(given, list) else given)


def charts(at: AppTest) -> list:
    """The plotly charts of the page; figures are in ``.spec``."""
    return [element.proto for element in at.get("plotly_chart")]
