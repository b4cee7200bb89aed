"""Carrying a plan out: what is touched, what is chosen again, in which precision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pruning.measure.windows import windows_for
from pruning.models.execution.blockwise import block_contexts
from pruning.pipeline import measure_model, prune
from pruning.planning import make_plan
from pruning.surgery.apply import apply
from pruning.surgery.cut import shared_copy
from tests.helpers import families, hand_plans


@pytest.fixture(params=families.FAMILIES, scope="module")
def tiny(request, tiny_model):
    return tiny_model(request.param)


def test_scope_pruned_leaves_the_others_alone(tiny):
    recipe = families.recipe(recovery__scope="pruned")
    shape = tiny.adapter.model_shape(tiny.model)
    plan = hand_plans.plan_by_hand(shape, {}, {1: range(12)})
    done = apply(tiny.model, plan, recipe, windows_for(tiny, recipe))
    assert [(event.block, event.kind) for event in done.events] == [(1, "ffn")]
    blocks = zip(tiny.adapter.blocks(tiny.model), tiny.adapter.blocks(done.model), strict=True)
    for index, (before, after) in enumerate(blocks):
        if index != 1:
            assert families.unchanged(after, before.state_dict())


def test_a_plan_beyond_the_recipes_range_is_carried_out(tiny):
    """An edited plan may cut where the recipe's range would not; the widths must be true."""
    recipe = families.recipe(blocks__end=1)
    shape = tiny.adapter.model_shape(tiny.model)
    plan = hand_plans.plan_by_hand(shape, {}, {0: range(5), 2: range(7)})
    done = apply(tiny.model, plan, recipe, windows_for(tiny, recipe))
    live = [tiny.adapter.ffn(block).units for block in tiny.adapter.blocks(done.model)]
    assert (
        live
        == [width.channels for width in done.widths]
        == [shape.blocks[0].ffn.units - gone for gone in (5, 0, 7)]
    )


@pytest.mark.parametrize(
    ("method", "rescore"), [("refit", True), ("refit", False), ("none", True), ("none", False)]
)
def test_scores_are_taken_again_on_the_pruned_stream(tiny, method, rescore):
    recipe = families.recipe(
        ffn__ratio=0.5,
        calibration__samples=30,
        recovery__method=method,
        recovery__scope="pruned",
        recovery__rescore=rescore,
    )
    planned = make_plan(measure_model(tiny, recipe), recipe)
    size = planned.shape.blocks[0].ffn
    # block 0 keeps two channels only, so that block 1 sees quite another stream
    planned = planned.with_module(hand_plans.module_by_hand(0, size, range(size.units - 2)))
    windows = windows_for(tiny, recipe)
    done = apply(tiny.model, planned, recipe, windows)
    channels = done.plan.blocks[1].ffn.removed
    assert len(channels) == len(planned.blocks[1].ffn.removed)
    if not rescore:
        assert done.plan == planned
        return
    # the stream that block 1's FFN sees once block 0 alone has been cut
    first = replace(planned, blocks=planned.blocks[:1] + _keep_all(planned).blocks[1:])
    halfway = apply(tiny.model, first, recipe, windows).model
    layer = tiny.adapter.ffn(tiny.adapter.blocks(halfway)[1]).out_proj
    with families.seen({"out_proj": layer}) as found:
        families.logits(halfway, windows.ids)
    energy = found["out_proj"][0].double().square().mean((0, 1))
    scores = energy * families.matrix(layer).square().sum(0)
    expected = scores.argsort()[: len(channels)].sort().values.tolist()
    assert list(channels) == expected != list(planned.blocks[1].ffn.removed)


@pytest.mark.parametrize("method", ["none", "bias", "refit", "reconstruct", "full"])
def test_bfloat16_runs_without_nan(tiny_model, tiny, method):
    family = tiny.source.rsplit("-", 2)[0]
    small = tiny_model(family, 0, torch.bfloat16)
    run = prune(small, families.recipe(heads__ratio=0.4, ffn__ratio=0.4, recovery__method=method))
    assert {p.dtype for p in run.pruned.model.parameters()} == {torch.bfloat16}
    assert torch.isfinite(families.logits(run.pruned.model, families.token_ids())).all()
    figures = [value for e in run.events for value in (e.error_before, e.error_after)]
    assert figures and torch.isfinite(torch.tensor(figures)).all()
    assert run.report.dtype == "bfloat16"
    assert run.report.after.bytes == 2 * run.report.after.parameters


@pytest.mark.parametrize("kept_bytes", [0, 2**30])
def test_each_token_passes_each_block_once(tiny, monkeypatch, kept_bytes):
    """And one module a second time only where the inputs of its out_proj could not be kept."""
    monkeypatch.setattr("pruning.recovery.solvers.activation_buffer.BUFFER_BYTES", kept_bytes)
    recipe = families.recipe(ffn__ratio=0.3, calibration__samples=30, recovery__scope="pruned")
    plan = make_plan(measure_model(tiny, recipe), recipe)
    windows = windows_for(tiny, recipe)
    counts, handles = {}, []

    def count(name):
        def hook(_layer, inputs, _output):
            counts[name] = counts.get(name, 0) + inputs[0].shape[:-1].numel()

        return hook

    def copied(model):
        pruned = shared_copy(model)
        for who, one in (("dense", model), ("pruned", pruned)):
            for index, block in enumerate(tiny.adapter.blocks(one)):
                layer = tiny.adapter.ffn(block).in_proj["up"].layer
                handles.append(layer.register_forward_hook(count((who, index))))
        return pruned

    monkeypatch.setattr("pruning.surgery.apply.shared_copy", copied)
    monkeypatch.setattr("pruning.surgery.streams.block_contexts", lambda *_: contexts)
    contexts = block_contexts(tiny.model, tiny.adapter, windows.ids.shape[1])
    try:
        done = apply(tiny.model, plan, recipe, windows)
    finally:
        for handle in handles:
            handle.remove()
    tokens = windows.ids.numel()
    passes = {who: counts[who, families.BLOCKS - 1] / tokens for who in ("dense", "pruned")}
    again = kept_bytes == 0 or tiny.adapter.ffn(tiny.adapter.blocks(done.model)[0]).normed
    assert passes == {"dense": 1, "pruned": 2 if again else 1}


@pytest.mark.parametrize("method", ["bias", "refit", "full"])
def test_what_was_kept_gives_what_running_again_does(tiny, monkeypatch, method):
    recipe = families.recipe(
        heads__ratio=0.3, ffn__ratio=0.3, calibration__samples=30, recovery__method=method
    )
    plan = make_plan(measure_model(tiny, recipe), recipe)
    windows, found = windows_for(tiny, recipe), []
    for kept_bytes in (0, 2**30):
        monkeypatch.setattr("pruning.recovery.solvers.activation_buffer.BUFFER_BYTES", kept_bytes)
        found.append(apply(tiny.model, plan, recipe, windows))
    summed, kept = found
    removed = [
        [(m.removed, m.removed_groups) for b in run.plan.blocks for m in (b.attention, b.ffn)]
        for run in found
    ]
    assert removed[0] == removed[1]
    for one, other in zip(summed.events, kept.events, strict=True):
        assert one.damping == other.damping
        assert one.error_before == pytest.approx(other.error_before, rel=1e-4)
        assert one.error_after == pytest.approx(other.error_after, rel=1e-3)
    torch.testing.assert_close(
        families.logits(summed.model, windows.ids[:4]),
        families.logits(kept.model, windows.ids[:4]),
        rtol=1e-3,
        atol=1e-3,
    )


def _keep_all(plan):
    return hand_plans.plan_by_hand(plan.shape, {}, {})
