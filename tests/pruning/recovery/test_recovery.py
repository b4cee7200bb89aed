"""Recovery on its own calibration tokens: never worse, and the reported errors are real."""

from __future__ import annotations

import pytest
import torch

from pruning.measure.windows import recovery_windows
from pruning.pipeline import prune
from pruning.recovery.solvers.normal_equations import DAMPINGS
from pruning.surgery.apply import apply
from tests.helpers import families, hand_plans
from tests.helpers.families import matrix

SLACK = 1 + 1e-9


@pytest.fixture(params=families.FAMILIES, scope="module")
def tiny(request, tiny_model):
    return tiny_model(request.param)


@pytest.mark.parametrize("intercept", ["auto", "add"])
@pytest.mark.parametrize("damping", ["auto", 0.001, 3.0])
@pytest.mark.parametrize("method", ["refit", "full"])
def test_no_module_gets_worse(tiny, method, damping, intercept):
    run = prune(
        tiny,
        families.recipe(
            heads__ratio=0.4,
            ffn__ratio=0.4,
            recovery__method=method,
            recovery__damping=damping,
            recovery__intercept=intercept,
        ),
    )
    assert len(run.events) == 2 * families.BLOCKS
    if method == "refit":  # a reconstruction aims each layer at its own dense output
        assert all(event.error_after <= event.error_before * SLACK for event in run.events)
    assert any(event.error_after < 0.9 * event.error_before for event in run.events)


@pytest.mark.parametrize("method", ["refit", "full"])
def test_the_first_module_is_better_than_without_recovery(tiny, method):
    """The later modules see other inputs, so only the first can be compared."""
    cut = {
        "blocks__start": 1,
        "ffn__ratio": 0.4,
        "recovery__rescore": False,
        "recovery__damping": 0.3,
    }
    none = prune(tiny, families.recipe(**cut, recovery__method="none")).events[0]
    found = prune(tiny, families.recipe(**cut, recovery__method=method)).events[0]
    assert (found.block, found.kind) == (none.block, none.kind) == (1, "ffn")
    assert none.error_after == none.error_before > 0
    assert found.error_after < none.error_after


def test_the_logits_come_closer_to_the_dense_ones(tiny):
    def loss(method):
        recipe = families.recipe(ffn__ratio=0.3, recovery__method=method, calibration__samples=40)
        ids = recovery_windows(tiny, recipe).ids
        pruned = prune(tiny, recipe).pruned.model
        return (families.logits(pruned, ids) - families.logits(tiny.model, ids)).square().sum()

    assert loss("refit") < loss("none")


@pytest.mark.parametrize("intercept", ["auto", "add"])
@pytest.mark.parametrize("method", ["none", "bias", "refit"])
def test_errors_are_those_of_collected_activations(tiny, method, intercept):
    """Block 1's FFN is cut first, so its inputs and its target are the dense model's own."""
    recipe = families.recipe(
        blocks__start=1,
        blocks__end=2,
        ffn__ratio=0.4,
        recovery__method=method,
        recovery__intercept=intercept,
        recovery__damping=0.1,
        calibration__samples=30,
    )
    run = prune(tiny, recipe)
    event, ids = run.events[0], recovery_windows(tiny, recipe).ids
    dense = tiny.adapter.ffn(tiny.adapter.blocks(tiny.model)[1]).out_proj
    with families.seen({"out_proj": dense}) as found:
        families.logits(tiny.model, ids)
    x, target = (tensor.double() for tensor in found["out_proj"])
    kept = list(run.plan.blocks[1].ffn.kept)
    cut = run.pruned.adapter.ffn(run.pruned.adapter.blocks(run.pruned.model)[1]).out_proj
    energy = target.square().sum()

    before = _apply(x[..., kept], matrix(dense)[:, kept], dense.bias) - target
    after = _apply(x[..., kept], matrix(cut), cut.bias) - target
    assert event.error_before == pytest.approx((before.square().sum() / energy).item(), rel=1e-4)
    assert event.error_after == pytest.approx((after.square().sum() / energy).item(), rel=1e-4)
    if method == "refit":
        bias = "free" if dense.bias is not None or intercept == "add" else None
        direct = _least_squares(x[..., kept], target, matrix(dense)[:, kept].T, 0.1, bias)
        torch.testing.assert_close(matrix(cut).T, direct, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("target", ["residual", "dense"])
def test_later_modules_are_fitted_to_the_target(tiny, target):
    """After a cut in block 1 the attention of block 2 is refitted, with nothing removed."""
    recipe = families.recipe(
        blocks__start=1,
        blocks__end=3,
        recovery__target=target,
        calibration__samples=30,
        recovery__damping=0.1,
    )
    shape = tiny.adapter.model_shape(tiny.model)
    plan = hand_plans.plan_by_hand(shape, {}, {1: range(12)})
    windows = recovery_windows(tiny, recipe)
    done = apply(tiny.model, plan, recipe, windows)
    places = [(event.block, event.kind) for event in done.events]
    assert places == [(1, "ffn"), (2, "attention"), (2, "ffn")]
    event = done.events[1]

    seen = []
    for model in (tiny.model, done.model):
        block = tiny.adapter.blocks(model)[2]
        out_proj = tiny.adapter.attention(block).out_proj
        with families.seen({"block": block, "out_proj": out_proj}) as found:
            families.logits(model, windows.ids)
        seen.append((found["block"][0], *found["out_proj"], out_proj))
    (stream, _, dense_out, dense), (pruned_stream, x, fitted_out, _) = seen
    wanted = dense_out.double()
    energy = wanted.square().sum()
    if target == "residual":
        wanted = wanted + (stream - pruned_stream).double()
    before = (_apply(x.double(), matrix(dense), dense.bias) - wanted).square().sum() / energy
    after = (fitted_out.double() - wanted).square().sum() / energy
    assert event.removed == ()
    assert event.error_before == pytest.approx(before.item(), rel=1e-4)
    assert event.error_after == pytest.approx(after.item(), rel=1e-4)
    assert event.error_after < event.error_before


def test_the_damping_is_chosen_on_every_tenth_window(tiny):
    recipe = families.recipe(
        blocks__start=1,
        blocks__end=2,
        ffn__ratio=0.4,
        calibration__samples=30,
        recovery__rescore=False,
        recovery__scope="pruned",
        recovery__copies=0,
    )
    run = prune(tiny, recipe)
    layer = tiny.adapter.ffn(tiny.adapter.blocks(tiny.model)[1]).out_proj
    with families.seen({"out_proj": layer}) as found:
        families.logits(tiny.model, recovery_windows(tiny, recipe).ids)
    kept = list(run.plan.blocks[1].ffn.kept)
    x, target = found["out_proj"][0].double()[..., kept], found["out_proj"][1].double()
    present = matrix(layer)[:, kept].T
    held = torch.zeros(30, dtype=torch.bool)
    held[[9, 19, 29]] = True
    bias = None if layer.bias is None else "free"
    start = 0.0 if bias is None else layer.bias.double()
    errors = {None: (x[held] @ present + start - target[held]).square().sum().item()}
    for damping in DAMPINGS:
        weight = _least_squares(x[~held], target[~held], present, damping, bias)
        shift = 0.0 if bias is None else (target[~held] - x[~held] @ weight).mean((0, 1))
        errors[damping] = (x[held] @ weight + shift - target[held]).square().sum().item()
    assert run.events[0].damping == min(errors, key=errors.get)


@pytest.mark.parametrize("method", ["reconstruct", "full"])
def test_the_error_before_is_that_of_the_plain_cut(tiny, method):
    """The first cut module reads what it does without recovery, so both runs tell the same."""
    cut = {"blocks__start": 1, "heads__ratio": 0.4, "ffn__ratio": 0.4, "recovery__rescore": False}
    recipe = families.recipe(**cut, recovery__method=method, recovery__damping=0.1)
    run = prune(tiny, recipe)
    none = prune(tiny, families.recipe(**cut, recovery__method="none"))
    first, plain = run.events[0], none.events[0]
    assert first.error_before == pytest.approx(plain.error_before, rel=1e-5)
    assert first.error_after != first.error_before

    # of a later module: the dense weights, cut, on what the recovered model hands it
    windows, event = recovery_windows(tiny, recipe), run.events[-1]
    seen = []
    for model in (tiny.model, run.pruned.model):
        block = tiny.adapter.blocks(model)[-1]
        ffn = tiny.adapter.ffn(block)
        up = ffn.in_proj["up"].layer
        with families.seen({"block": block, "up": up, "out_proj": ffn.out_proj}) as found:
            families.logits(model, windows.ids)
        seen.append(found)
    dense_ffn = tiny.adapter.ffn(tiny.adapter.blocks(tiny.model)[-1])
    with families.seen({"out_proj": dense_ffn.out_proj}) as found:
        _ffn_of(tiny.adapter.blocks(tiny.model)[-1])(seen[1]["up"][0])
    kept = list(run.plan.blocks[-1].ffn.kept)
    x, dense = found["out_proj"][0].double()[..., kept], dense_ffn.out_proj
    given = _apply(x, matrix(dense)[:, kept], dense.bias)
    energy = seen[0]["out_proj"][1].double().square().sum()
    # what both streams have before the FFN: what leaves the block without what it adds
    lost = (seen[0]["block"][1] - seen[0]["out_proj"][1]).double()
    lost = lost - (seen[1]["block"][1] - seen[1]["out_proj"][1]).double()
    wanted = seen[0]["out_proj"][1].double() + lost
    error = (given - wanted).square().sum() / energy
    assert event.error_before == pytest.approx(error.item(), rel=1e-3)


def _ffn_of(block):
    return block.mlp


def test_reconstruction_works_on_modules_that_lose_nothing(tiny):
    """With the wider scope; it was ignored without a word."""
    recipe = families.recipe(recovery__method="reconstruct", recovery__damping=0.1)
    shape, windows = tiny.adapter.model_shape(tiny.model), recovery_windows(tiny, recipe)
    plan = hand_plans.plan_by_hand(shape, {}, {0: range(12)})
    done = apply(tiny.model, plan, recipe, windows)
    places = [(event.block, event.kind) for event in done.events]
    assert places == [(0, "ffn"), *((i, k) for i in (1, 2) for k in ("attention", "ffn"))]
    block = tiny.adapter.blocks(done.model)[1]
    assert not families.unchanged(block, tiny.adapter.blocks(tiny.model)[1].state_dict())
    narrow = families.recipe(recovery__method="reconstruct", recovery__scope="pruned")
    assert len(apply(tiny.model, plan, narrow, windows).events) == 1


@pytest.mark.parametrize("method", ["reconstruct", "full"])
def test_reconstruction_fits_level_1_to_the_dense_outputs(tiny, method):
    recipe = families.recipe(
        calibration__samples=30,
        recovery__damping=0.1,
        recovery__method=method,
        recovery__scope="pruned",
    )
    shape, windows = tiny.adapter.model_shape(tiny.model), recovery_windows(tiny, recipe)
    plan = hand_plans.plan_by_hand(shape, {}, {0: range(30), 1: [0]})
    done = apply(tiny.model, plan, recipe, windows).model
    for place in range(len(_in_proj_layers(tiny, tiny.model))):
        layers = [_in_proj_layers(tiny, model)[place] for model in (tiny.model, done)]
        seen = []
        for model, layer in zip((tiny.model, done), layers, strict=True):
            with families.seen({"in_proj": layer}) as found:
                families.logits(model, windows.ids)
            seen.append(found["in_proj"])
        x, wanted = seen[1][0].double(), seen[0][1].double()
        bias = None if layers[0].bias is None else "free"
        direct = _least_squares(x, wanted, matrix(layers[0]).T, 0.1, bias)
        # channel 0 went after the fit
        torch.testing.assert_close(matrix(layers[1]).T, direct[:, 1:], atol=1e-4, rtol=1e-3)
        assert (matrix(layers[1]) - matrix(layers[0])[1:]).abs().max() > 0.01


def _in_proj_layers(tiny, model):
    return tiny.adapter.ffn(tiny.adapter.blocks(model)[1]).in_proj_layers()


def _apply(x, weight, bias):
    out = x @ weight.T
    return out if bias is None else out + bias.double()


def _least_squares(x, target, present, damping, bias):
    """Independent solution: an augmented system for ``torch.linalg.lstsq``."""
    x, target = x.reshape(-1, x.shape[-1]), target.reshape(-1, target.shape[-1])
    if bias == "free":
        x, target = x - x.mean(0), target - target.mean(0)
    ridge = (damping * x.square().sum(0).mean()).sqrt()
    rows = torch.cat([x, ridge * torch.eye(x.shape[1], dtype=x.dtype)])
    return torch.linalg.lstsq(rows, torch.cat([target, ridge * present])).solution


@pytest.mark.parametrize("samples", [5, 30])
def test_the_first_layers_are_fitted_only_where_that_helps_the_module(tiny, samples):
    """On windows held out from the fit; without any, or with ``keep``, they stay."""
    rule = {
        "calibration__samples": samples,
        "recovery__method": "reconstruct",
        "recovery__scope": "pruned",
    }
    shape = tiny.adapter.model_shape(tiny.model)
    plan = hand_plans.plan_by_hand(shape, {}, {0: range(30), 1: [0]})
    found = {}
    for name in ("dense", "checked", "keep"):
        recipe = families.recipe(**rule, recovery__in_proj=name)
        done = apply(tiny.model, plan, recipe, recovery_windows(tiny, recipe))
        found[name] = (
            [matrix(layer) for layer in _in_proj_layers(tiny, done.model)],
            done.events[1].error_after,
        )
    weights = {name: layers for name, (layers, _) in found.items()}
    present = [matrix(layer) for layer in _in_proj_layers(tiny, tiny.model)]
    assert _same(weights["keep"], [layer[1:] for layer in present])
    assert not _same(weights["dense"], weights["keep"])
    if samples < 10:
        assert _same(weights["checked"], weights["keep"])
    else:
        assert not _same(weights["checked"], weights["dense"])


def _same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
