"""From a measurement to a plan: counts, ranges, groups, reasons."""

from __future__ import annotations

import numpy as np
import pytest

from pruning.artifacts.plan import BY_HAND, SIMILARITY, check
from pruning.criteria import unit_scores
from pruning.planning.planner import make_plan
from pruning.planning.rescore import rescored
from pruning.planning.selection import removed_count
from pruning.utils.errors import UsageError
from tests.helpers import families, hand_plans, synthetic


def plan_of(measured=None, **changes):
    return make_plan(measured or synthetic.measurement(), families.recipe(**changes))


@pytest.mark.parametrize(
    ("ratio", "units", "count"),
    [(0.0, 10, 0), (0.25, 10, 3), (0.24, 10, 2), (0.5, 9, 5), (0.999, 10, 9), (0.999, 1, 0)],
)
def test_ratios_become_counts(ratio, units, count):
    assert removed_count(ratio, units) == count


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.267, 0.5, 0.9, 0.999])
def test_the_weakest_channels_go(ratio):
    measured = synthetic.measurement()
    plan = plan_of(measured, ffn__ratio=ratio)
    for block, shape, data in zip(plan.blocks, plan.shape.blocks, measured.blocks, strict=True):
        scores = unit_scores("second_moment_exact", data.ffn.statistics, shape.ffn)
        order = sorted(range(shape.ffn.units), key=lambda unit: (scores[unit], unit))
        count = min(int(ratio * 37 + 0.5), 36)
        assert list(block.ffn.removed) == sorted(order[:count])
        assert len(block.ffn.kept) == 37 - count
        assert block.ffn.values == tuple(scores[list(block.ffn.removed)])
        assert block.ffn.ranks == tuple(order.index(unit) + 1 for unit in block.ffn.removed)
        assert not block.attention.removed
    check(plan)


def test_equal_scores_still_give_the_exact_count():
    measured = synthetic.measurement()
    for block in measured.blocks:
        for name in ("level2_sq", "input_second_moment"):
            block.ffn.statistics[name][:] = 1.0
    module = plan_of(measured, ffn__ratio=0.4).blocks[0].ffn
    assert module.removed == tuple(range(15))
    assert module.ranks == tuple(range(1, 16))


@pytest.mark.parametrize(("start", "end"), [(0, None), (1, 3), (2, None), (0, 1)])
def test_only_the_range_is_cut(start, end):
    plan = plan_of(
        blocks__start=start, blocks__end=end, ffn__ratio=0.3, heads__ratio=0.4, heads__threshold=0.2
    )
    for index, block in enumerate(plan.blocks):
        inside = start <= index < (3 if end is None else end)
        assert bool(block.ffn.removed) == bool(block.attention.removed) == inside


@pytest.mark.parametrize(("start", "end"), [(0, 4), (3, None), (5, 9)])
def test_a_range_outside_the_model_is_refused(start, end):
    with pytest.raises(UsageError, match="block range"):
        plan_of(blocks__start=start, blocks__end=end)


@pytest.mark.parametrize("policy", ["query", "kv_group"])
@pytest.mark.parametrize("groups", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("threshold", [None, 0.05, 0.3, 0.69])
def test_groups_stay_even(policy, groups, threshold):
    for seed, ratio in enumerate((0.0, 0.2, 0.5, 0.8, 0.999)):
        plan = plan_of(
            synthetic.measurement(seed, heads=12, groups=groups),
            heads__ratio=ratio,
            heads__policy=policy,
            heads__threshold=threshold,
        )
        check(plan)
        per_group = 12 // groups
        for block in plan.blocks:
            module = block.attention
            left = np.bincount([h // per_group for h in module.kept], minlength=groups)
            assert module.kept
            # a single group cannot go whole
            if per_group == 1 or (policy == "kv_group" and groups > 1):
                assert set(left) <= {0, per_group}
                assert module.removed_groups == tuple(np.nonzero(left == 0)[0])
            else:
                assert len(set(left)) == 1 and left[0] >= 1
                assert module.removed_groups == ()


def test_every_removed_unit_has_a_reason():
    plan = plan_of(
        synthetic.measurement(heads=12, groups=12),
        heads__threshold=0.1,
        heads__ratio=0.6,
        ffn__ratio=0.5,
    )
    seen = set()
    for block in plan.blocks:
        for module in (block.attention, block.ffn):
            assert list(module.reasons()) == list(module.removed)
            for unit in range(module.units):
                phrase = module.reason(unit)
                assert (phrase is None) == (unit in module.kept)
                seen.add(phrase.split()[0] if phrase else None)
    assert {"like", "second", None} <= seen
    similar = next(
        (m, u)
        for b in plan.blocks
        for m in (b.attention,)
        for u, c in zip(m.removed, m.criteria, strict=True)
        if c == SIMILARITY
    )
    row = similar[0].removed.index(similar[1])
    assert similar[0].reason(similar[1]) == (
        f"like head {similar[0].partners[row]}, JS {similar[0].values[row]:.3f} nats"
    )


def test_similarity_goes_first_and_the_ratio_fills_up():
    measured = synthetic.measurement(3, heads=12, groups=12)
    similar = plan_of(measured, heads__threshold=0.08)
    filled = plan_of(measured, heads__threshold=0.08, heads__ratio=0.5)
    for few, many in zip(similar.blocks, filled.blocks, strict=True):
        assert set(few.attention.criteria) <= {SIMILARITY}
        assert set(few.attention.removed) <= set(many.attention.removed)
        assert len(many.attention.removed) == max(6, len(few.attention.removed))
    assert any(block.attention.removed for block in similar.blocks)


def test_rescoring_keeps_what_similarity_and_people_chose():
    measured = synthetic.measurement(3, heads=12, groups=12)
    module = plan_of(measured, heads__threshold=0.08, heads__ratio=0.6).blocks[0].attention
    fixed = {u for u, c in zip(module.removed, module.criteria, strict=True) if c == SIMILARITY}
    assert fixed and len(fixed) < len(module.removed)
    scores = -np.arange(12.0)  # now the last heads are the weakest
    shape = measured.shape.blocks[0].attention
    again = rescored(module, shape, scores, "second_moment")
    assert len(again.removed) == len(module.removed) and fixed <= set(again.removed)
    rest = [unit for unit in range(12) if unit not in fixed]
    count = len(module.removed) - len(fixed)
    assert set(again.removed) - fixed == set(rest[-count:])
    for unit in fixed:
        assert again.reason(unit) == module.reason(unit)


@pytest.mark.parametrize("policy", ["query", "kv_group"])
def test_rescoring_keeps_groups_even(policy):
    measured = synthetic.measurement(1, heads=12, groups=4)
    plan = plan_of(measured, heads__threshold=0.2, heads__ratio=0.5, heads__policy=policy)
    random = np.random.default_rng(0)
    for index, block in enumerate(plan.blocks):
        again = rescored(
            block.attention, plan.shape.blocks[index].attention, random.random(12), "second_moment"
        )
        check(plan.with_module(again))
        assert len(again.removed) == len(block.attention.removed) > 0


def test_rescoring_channels_marked_by_hand():
    shape = synthetic.shape()
    module = hand_plans.module_by_hand(0, shape.blocks[0].ffn, [3, 20])
    again = rescored(module, shape.blocks[0].ffn, np.arange(37.0), "second_moment")
    assert again.removed == (3, 20) and set(again.criteria) == {BY_HAND}
    assert again.reason(3) == "marked by hand"


def test_rescoring_channels_by_score():
    plan = plan_of(ffn__ratio=0.3)
    shape = plan.shape.blocks[1].ffn
    again = rescored(plan.blocks[1].ffn, shape, np.arange(37.0)[::-1].copy(), "second_moment")
    count = len(plan.blocks[1].ffn.removed)
    assert again.removed == tuple(range(37 - count, 37)) and again.block == 1


def test_the_same_inputs_give_the_same_plan():
    changes = {"heads__threshold": 0.3, "heads__ratio": 0.3, "ffn__ratio": 0.3}
    assert plan_of(**changes) == plan_of(**changes)
