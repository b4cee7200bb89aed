"""The gradient pass against plain autograd that keeps every gradient."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from pruning.criteria import CRITERIA, unit_scores
from pruning.measure import measure, with_gradients
from pruning.utils.errors import Cancelled, Unsupported
from tests.helpers import families

GRADIENTS = [entry.name for entry in CRITERIA if entry.value.gradients]
BLOCK = 1
KINDS = ("attention", "ffn")
SAMPLES, LENGTH = 5, 12


@pytest.fixture(params=families.FAMILIES, scope="module")
def tiny(request, tiny_model):
    return tiny_model(request.param)


@pytest.fixture(scope="module")
def windows(tiny):
    return families.windows(tiny, SAMPLES, LENGTH)


@pytest.fixture(scope="module")
def plain(tiny, windows):
    return measure(tiny.model, windows, name="tiny")


@pytest.fixture(scope="module")
def measured(tiny, windows, plain):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "pruning.models.execution.blockwise.TOKENS_PER_BATCH", 2 * LENGTH
        )  # the last one alone
        return with_gradients(plain, tiny.model, windows)


@pytest.fixture(scope="module")
def by_hand(tiny, windows):
    """A float64 copy of the model, the gradients of its mean loss, and those window by window."""
    model = copy.deepcopy(tiny.model).double().requires_grad_(True)

    def gradients_of(ids):
        model.zero_grad()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}

    return model, gradients_of(windows.ids), [gradients_of(one) for one in windows.ids.split(1)]


def oriented(tiny, name, tensor):
    """A weight or its gradient as [out, in]."""
    conv = tiny.model.config.model_type == "gpt2" and "ln_" not in name
    return tensor.T if conv else tensor


def unit_parts(tiny, kind):
    """Per unit: ``[(parameter, rows or columns, axis of a vector, sharers)]``."""
    prefix = {"gpt2": f"transformer.h.{BLOCK}."}.get(
        tiny.model.config.model_type, f"model.layers.{BLOCK}."
    )
    module = tiny.adapter.module(tiny.adapter.blocks(tiny.model)[BLOCK], kind)
    width, parts = module.unit_width, []
    for unit in range(module.units):
        own = list(range(unit * width, (unit + 1) * width))
        sharers = module.units // module.groups if kind == "attention" else 1
        shared = [unit // sharers * width + place for place in range(width)]
        if prefix.startswith("transformer"):
            size = module.units * width
            in_proj, out_proj = {
                "attention": (
                    [("attn.c_attn", [size * third + c for c in own], 1) for third in range(3)],
                    "attn.c_proj",
                ),
                "ffn": ([("mlp.c_fc", own, 1)], "mlp.c_proj"),
            }[kind]
        else:
            in_proj, out_proj = {
                "attention": (
                    [
                        ("self_attn.q_proj", own, 1),
                        ("self_attn.k_proj", shared, sharers),
                        ("self_attn.v_proj", shared, sharers),
                    ],
                    "self_attn.o_proj",
                ),
                "ffn": ([("mlp.gate_proj", own, 1), ("mlp.up_proj", own, 1)], "mlp.down_proj"),
            }[kind]
        found = [(f"{prefix}{name}.weight", rows, 1, share) for name, rows, share in in_proj]
        parts.append([*found, (f"{prefix}{out_proj}.weight", own, 0, 1)])
    return parts


def expected_taylor(tiny, by_hand, kind, name):
    model, whole, single = by_hand
    weights = dict(model.named_parameters())
    scores = []
    for parts in unit_parts(tiny, kind):
        total = 0.0
        for parameter, places, axis, sharers in parts:

            def cut(tensor, parameter=parameter, places=places, axis=axis):
                return oriented(tiny, parameter, tensor).index_select(
                    1 - axis, torch.tensor(places)
                )

            w, g = cut(weights[parameter].detach()), cut(whole[parameter])
            if name == "taylor_vector":
                term = (w * g).sum(axis).abs().sum()
            elif name == "taylor_element1":
                term = (w * g).abs().sum()
            else:
                squares = sum(cut(one[parameter]).square() for one in single) / len(single)
                term = (w.square() * squares).sum()
            total += term.item() / sharers
        scores.append(total)
    return scores


def scores_of(measured, name, kind):
    statistics = measured.blocks[BLOCK].module(kind).statistics
    return unit_scores(name, statistics, measured.shape.blocks[BLOCK].module(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["taylor_vector", "taylor_element1", "taylor_element2"])
def test_taylor_scores_equal_plain_autograd(tiny, measured, by_hand, kind, name):
    expected = expected_taylor(tiny, by_hand, kind, name)
    np.testing.assert_allclose(scores_of(measured, name, kind), expected, rtol=1e-3)


@pytest.fixture(scope="module")
def token_effects(by_hand, tiny, windows):
    """Per module: gradients by its contribution [n, s, d], and by units' gates [n, s, units]."""
    model = by_hand[0]
    block = tiny.adapter.blocks(model)[BLOCK]
    gates, contributions, handles = {}, {}, []

    def gate(kind, module):
        def hook(_layer, inputs):
            size = (*inputs[0].shape[:2], module.units, 1)
            gates[kind] = torch.ones(size, dtype=torch.float64, requires_grad=True)
            heads = inputs[0].unflatten(-1, (module.units, -1))
            return ((heads * gates[kind]).flatten(-2),)

        return hook

    def keep(kind):
        def hook(_layer, _inputs, output):
            contributions[kind] = output
            output.retain_grad()

        return hook

    for kind in KINDS:
        module = tiny.adapter.module(block, kind)
        handles.append(module.out_proj.register_forward_pre_hook(gate(kind, module)))
        handles.append(module.out_proj.register_forward_hook(keep(kind)))
    loss = model(input_ids=windows.ids, labels=windows.ids, use_cache=False).loss
    (loss * SAMPLES * (LENGTH - 1)).backward()
    for handle in handles:
        handle.remove()
    return {kind: (contributions[kind].grad, gates[kind].grad[..., 0]) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_fisher_is_the_mean_squared_effect_of_gating_a_unit(measured, token_effects, kind):
    """The derivative by a gate on a unit at one token is its first-order effect there."""
    output, gates = token_effects[kind]
    predicted = SAMPLES * (LENGTH - 1)
    expected = gates.square().sum((0, 1)) / predicted
    np.testing.assert_allclose(scores_of(measured, "fisher", kind), expected, rtol=1e-3)
    statistics = measured.blocks[BLOCK].module(kind).statistics
    assert statistics["fisher_output"].shape == (1,)
    assert statistics["fisher_output"][0] == pytest.approx(
        output.square().sum().item() / predicted, rel=1e-3
    )


def hook_counts(model):
    """By module; transformers leaves some of its own once it has given attention maps."""
    return [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]


def test_the_model_and_the_measurement_stay_as_they_were(tiny, windows, plain, measured):
    before, hooks = families.snapshot(tiny.model), hook_counts(tiny.model)
    for parameter in tiny.model.parameters():
        parameter.requires_grad_(parameter.dim() == 1)
    wanted = [p.requires_grad for p in tiny.model.parameters()]
    try:
        again = with_gradients(plain, tiny.model, windows)
        assert families.unchanged(tiny.model, before)
        assert [p.requires_grad for p in tiny.model.parameters()] == wanted
        assert all(p.grad is None for p in tiny.model.parameters())
    finally:
        tiny.model.requires_grad_(False)
    assert hook_counts(tiny.model) == hooks
    for old, one, other in zip(plain.blocks, measured.blocks, again.blocks, strict=True):
        assert old.divergence is one.divergence
        for kind in KINDS:
            known = old.module(kind).statistics
            found = one.module(kind).statistics
            assert all(found[name] is known[name] for name in known)
            for name, values in found.items():
                np.testing.assert_allclose(other.module(kind).statistics[name], values, rtol=1e-4)


@pytest.mark.usefixtures("only_new_objects")
def test_no_two_modules_hold_weight_gradients_at_once(tiny, windows, plain, monkeypatch):
    import gc
    import weakref

    import pruning.measure.gradient_pass as gradients

    made, alive = [], []

    class Counted(gradients.GradientSums):
        def __init__(self, module):
            gc.collect()
            alive.append(sum(one() is not None for one in made))
            super().__init__(module)
            made.append(weakref.ref(self))

    monkeypatch.setattr(gradients, "GradientSums", Counted)
    with_gradients(plain, tiny.model, windows)
    assert len(alive) == 2 * families.BLOCKS and set(alive) == {0}


def test_bfloat16_weights_give_float32_statistics(tiny_model, windows, measured, tiny):
    half = tiny_model(tiny.source.split("-")[0], dtype=torch.bfloat16)
    found = with_gradients(measure(half.model, windows, name="half"), half.model, windows)
    for kind in KINDS:
        for name in GRADIENTS:
            one, other = (scores_of(m, name, kind) for m in (found, measured))
            assert np.isfinite(one).all() and (one >= 0).all()
            assert np.corrcoef(np.log(one + 1e-12), np.log(other + 1e-12))[0, 1] > 0.9


def test_gradients_that_overflow_are_refused_in_one_sentence(tiny_model, windows, plain, tiny):
    broken = families.loaded(tiny.source.split("-")[0])
    with torch.no_grad():
        next(iter(broken.adapter.blocks(broken.model)[0].parameters())).fill_(float("inf"))
    with pytest.raises(Unsupported, match="overflow in float32"):
        with_gradients(plain, broken.model, windows)


def test_the_pass_reports_and_can_be_cancelled(tiny, windows, plain):
    steps, hooks = [], hook_counts(tiny.model)
    with_gradients(plain, tiny.model, windows, progress=steps.append)
    assert [step.done for step in steps] == [1, 2, 3] and {s.stage for s in steps} == {"measure"}
    calls = iter(range(100))
    with pytest.raises(Cancelled):
        # past the forward pass, in the middle of the blocks
        with_gradients(plain, tiny.model, windows, should_cancel=lambda: next(calls) > SAMPLES)
    assert hook_counts(tiny.model) == hooks
