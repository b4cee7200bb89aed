"""Plans as data: round trip, refused edits, arithmetic of sizes."""

from __future__ import annotations

import json

import pytest

from pruning.artifacts.plan import Plan, check
from pruning.artifacts.shapes import Widths, footprint, full_widths
from pruning.planning import make_plan
from pruning.surgery.apply import apply
from pruning.utils.errors import UsageError
from tests.helpers import families, hand_plans, synthetic


@pytest.fixture(scope="module")
def plan():
    return make_plan(
        synthetic.measurement(),
        families.recipe(heads__ratio=0.4, ffn__ratio=0.3, heads__threshold=0.2),
    )


def test_round_trip(plan):
    again = Plan.from_json(plan.to_json())
    assert again == plan and again.to_json() == plan.to_json()
    assert again.widths == plan.widths


def _set(*path_and_value):
    *path, value = path_and_value

    def change(data):
        place = data
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def _unit(place, value):
    """Put ``value`` into the list of removed channels of block 1."""
    return lambda data: data["blocks"][1]["ffn"]["removed"].__setitem__(place, value)


def _one_head_back(data):
    module = data["blocks"][0]["attention"]
    for column in ("removed", "criteria", "values", "partners", "ranks"):
        module[column].pop()


ATTENTION = ("blocks", 0, "attention")
FFN = ("blocks", 1, "ffn")
EDITS = {
    "future version": _set("version", 2),
    "no version": lambda data: data.pop("version"),
    "a block less": lambda data: data["blocks"].pop(),
    "a module less": lambda data: data["blocks"][0].pop("ffn"),
    "an unknown field": _set(*FFN, "colour", "red"),
    "filed under another block": _set(*FFN, "block", 0),
    "other size": _set(*FFN, "units", 38),
    "unit beyond the end": _unit(-1, 37),
    "negative unit": _unit(0, -1),
    "unit twice": lambda data: _unit(1, data["blocks"][1]["ffn"]["removed"][0])(data),
    "unit as text": _unit(0, "a"),
    "half a unit": _unit(0, 0.5),
    "a reason less": lambda data: data["blocks"][1]["ffn"]["values"].pop(),
    "every channel": _set(*FFN, "removed", list(range(37))),
    "uneven groups": _one_head_back,
    "a whole group that is not there": _set(*ATTENTION, "removed_groups", [1]),
    "shape missing": lambda data: data.pop("shape"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_invalid_edits_are_refused_in_one_line(plan, edit):
    data = json.loads(plan.to_json())
    EDITS[edit](data)
    with pytest.raises(UsageError) as caught:
        Plan.from_json(json.dumps(data))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"plan"'])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(UsageError) as caught:
        Plan.from_json(text)
    assert "\n" not in str(caught.value)


def test_a_group_named_twice_is_refused(tiny_model):
    tiny = tiny_model("llama_grouped")
    shape = tiny.adapter.model_shape(tiny.model)
    good = hand_plans.plan_by_hand(shape, {0: (0, 1, 2)}, {})
    check(good)
    data = json.loads(good.to_json())
    data["blocks"][0]["attention"]["removed_groups"] = [0, 0]
    with pytest.raises(UsageError):
        Plan.from_json(json.dumps(data))


def test_a_valid_edit_is_accepted(plan):
    shape = plan.shape
    by_hand = hand_plans.module_by_hand(2, shape.blocks[2].ffn, [4, 5])
    edited = Plan.from_json(plan.with_module(by_hand).to_json())
    assert edited.blocks[2].ffn.removed == (4, 5)
    assert edited.blocks[:2] == plan.blocks[:2] and plan.blocks[2].ffn.removed != (4, 5)


def test_the_plan_of_another_model_is_refused(tiny_model, plan):
    tiny = tiny_model("llama_grouped")
    with pytest.raises(UsageError, match="another model"):
        apply(tiny.model, plan, families.recipe(), families.windows(tiny))


def test_an_unfit_plan_is_refused_before_anything_runs(tiny_model):
    tiny = tiny_model("llama_grouped")
    shape = tiny.adapter.model_shape(tiny.model)
    uneven = hand_plans.plan_by_hand(shape, {1: (0,)}, {})
    with pytest.raises(UsageError, match="query heads per key/value group"):
        apply(tiny.model, uneven, families.recipe(), families.windows(tiny))


def test_footprint_arithmetic():
    """Every figure multiplied out by hand for one block of a small shape."""
    shape = synthetic.shape(blocks=1)
    # 5 query heads on 1 key/value head, 30 channels, a new attention bias
    found = footprint(shape, [Widths(5, 1, 30, added_attention_bias=True)], context=16)
    query = output = 5 * 4 * 24
    key = value = 1 * 4 * 24
    ffn = 3 * 24 * 30
    block = query + key + value + output + 24 + ffn + 2 * 24
    assert found.block_parameters == block
    assert found.parameters == block + 2 * 100 * 24
    assert found.bytes == 4 * found.parameters
    products = query + key + value + output + ffn + 100 * 24 + 2 * 5 * 4 * 16
    assert found.flops_per_token == 2 * products
    assert found.context == 16


def test_the_plans_figures(plan):
    assert plan.before == footprint(plan.shape, full_widths(plan.shape), 16)
    assert plan.after == footprint(plan.shape, plan.widths, 16)
    assert 0 < plan.kept_block_parameters < 1
    assert plan.kept_block_parameters == pytest.approx(
        plan.after.block_parameters / plan.before.block_parameters
    )
    empty = make_plan(synthetic.measurement(), families.recipe())
    assert empty.is_empty and empty.kept_block_parameters == 1.0 and not plan.is_empty
