"""Reports as data: round trip, older files, refused damage."""

from __future__ import annotations

import json

import pytest

from pruning.artifacts.events import ModuleEvent
from pruning.artifacts.report import Report, make_report
from pruning.planning import make_plan
from pruning.utils.errors import SourceError
from tests.helpers import families, synthetic


@pytest.fixture(scope="module")
def report() -> Report:
    measurement, recipe = synthetic.measurement(), families.recipe(ffn__ratio=0.3)
    plan = make_plan(measurement, recipe)
    ffn = plan.blocks[1].ffn
    event = ModuleEvent(1, "ffn", ffn.units, ffn.removed, (), 0.5, 0.25, 1e-5, 0.1, 0.05, ffn)
    return make_report(
        measurement=measurement,
        plan=plan,
        widths=plan.widths,
        events=[event],
        recipe=recipe.model_dump(),
        device="cpu",
        seconds=1.0,
        peak_memory_bytes=10,
    )


def test_round_trip(report):
    again = Report.from_json(report.to_json())
    assert again.blocks == report.blocks and again.after == report.after
    assert again.to_json() == report.to_json()
    assert again.blocks[1].channels.error_after == 0.25
    assert json.loads(report.to_json())["parameters_after"] == report.after.parameters


def test_files_of_before_fixed_modules_were_told_still_load(report):
    data = json.loads(report.to_json())
    del data["fixed"], data["whole"]
    older = Report.from_json(json.dumps(data))
    assert older.fixed == {} and older.whole == ()


DAMAGES = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: "",
    "a list": lambda data: "[]",
    "a field less": lambda data: data.replace('"corpus"', '"colour"', 1),
    "a number as text": lambda data: data.replace('"samples": 4', '"samples": "4"', 1),
    "an unknown field": lambda data: data.replace(
        '"kv_heads_kept":', '"spare": 1, "kv_heads_kept":', 1
    ),
    "not a number": lambda data: data.replace('"error_before": 0.5', '"error_before": NaN', 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_in_one_sentence(report, damage):
    broken = DAMAGES[damage](report.to_json())
    assert broken != report.to_json()
    with pytest.raises(
        SourceError, match="^The report is damaged .*; save the model again.$"
    ) as it:
        Report.from_json(broken)
    assert len(str(it.value)) <= 300
