"""Mixtures of experts: every expert by its own tokens, however few they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pruning
from pruning.adapters.experts import Mixture
from pruning.artifacts.plan import check
from pruning.criteria import CRITERIA, unit_scores
from pruning.measure import measure, with_gradients
from pruning.measure.forward_pass import FEW_TOKENS
from pruning.measure.windows import recovery_windows
from pruning.pipeline import measure_model, prune
from pruning.recovery.solvers.expert_fit import ExpertFit, relative
from pruning.recovery.solvers.layer_fit import OutputProjectionFit
from pruning.recovery.solvers.normal_equations import NormalEquations
from pruning.surgery.apply import apply
from pruning.utils.errors import Unsupported, UsageError
from tests.helpers import families, hand_plans

MIXTURES = ("mixtral", "qwen2_moe", "qwen2_moe_some_blocks", "qwen3_moe", "olmoe")
FFN = {"ffn__ratio": 0.4, "calibration__samples": 20}


def entering(model, block, ids):
    """What the experts of a block are called with: tokens, chosen experts, shares."""
    with families.seen({"experts": block.mlp.experts}) as found:
        families.logits(model, ids)
    return found["experts"]


def inner(block, expert, hidden):
    """Gate, up and the intermediate of one expert, from its stored weights."""
    gate, up = (hidden @ block.mlp.experts.gate_up_proj[expert].T).chunk(2, dim=-1)
    return gate, up, block.mlp.experts.act_fn(gate) * up


@pytest.fixture(params=MIXTURES)
def tiny(request, tiny_model):
    return tiny_model(request.param)


def test_statistics_are_those_of_the_tokens_routed_to_an_expert(tiny):
    windows = families.windows(tiny)
    measured = measure(tiny.model, windows, name="tiny")
    blocks = tiny.adapter.blocks(tiny.model)
    for block, found, shape in zip(blocks, measured.blocks, measured.shape.blocks, strict=True):
        if shape.ffn.experts == 1:
            assert "expert_tokens" not in found.ffn.statistics
            continue
        hidden, chosen, _ = entering(tiny.model, block, windows.ids)
        size = shape.ffn.units_per_expert
        for expert in range(shape.ffn.experts):
            mine = hidden[(chosen == expert).any(-1)]
            assert found.ffn.statistics["expert_tokens"][expert] == len(mine)
            if len(mine) < FEW_TOKENS:
                continue
            gate, up, values = inner(block, expert, mine.double().float())
            units = slice(expert * size, (expert + 1) * size)
            for name, x in (("gate", gate), ("up", up), ("input", values)):
                wanted = x.double().square().mean(0).float().numpy()
                statistic = found.ffn.statistics[f"{name}_second_moment"][units]
                np.testing.assert_allclose(statistic, wanted, rtol=1e-4)


def test_every_expert_loses_its_own_weakest_channels(tiny):
    measured = measure_model(tiny, families.recipe(**FFN))
    for name in CRITERIA.names():
        if CRITERIA[name].gradients:
            continue
        plan = pruning.make_plan(measured, families.recipe(**FFN, ffn__score=name))
        check(pruning.Plan.from_json(plan.to_json()))
        for index, (block, shape) in enumerate(zip(plan.blocks, plan.shape.blocks, strict=True)):
            size = shape.ffn.units_per_expert
            scores = unit_scores(
                name, measured.blocks[index].ffn.statistics, shape.ffn, block=index
            )
            for expert, table in enumerate(scores.reshape(-1, size)):
                gone = [u % size for u in block.ffn.removed if u // size == expert]
                assert len(gone) * shape.ffn.experts == len(block.ffn.removed) > 0
                assert (size - len(gone)) % shape.ffn.step == 0
                assert table[gone].max() <= np.delete(table, gone).min()
            if shape.ffn.experts > 1:
                phrase = block.ffn.reason(block.ffn.removed[-1])
                assert phrase.endswith(f"of {size} in expert {shape.ffn.experts - 1}")


def test_gradient_scores_are_refused_in_one_sentence(tiny):
    windows = families.windows(tiny, samples=2)
    measured = measure_model(tiny, families.recipe())
    with pytest.raises(Unsupported, match="not there for mixtures of experts; choose"):
        with_gradients(measured, tiny.model, windows)


def test_what_stays_whole_is_said(tiny):
    run = prune(tiny, families.recipe(**FFN, recovery__method="none"))
    (sentence,) = run.plan.shape.whole
    assert "router" in sentence and sentence.endswith(".")
    assert ("shared expert" in sentence) == ("qwen2" in tiny.source)
    assert sentence in run.report.to_markdown()
    again = type(run.report).from_json(run.report.to_json())
    assert again == run.report
    dense = dict(tiny.model.named_parameters())
    for name, parameter in run.pruned.model.named_parameters():
        if ".experts." not in name and ".mlp.up_" not in name and ".mlp.gate_proj" not in name:
            if not name.endswith("mlp.down_proj.weight"):
                assert torch.equal(parameter, dense[name]), name


def test_plans_that_the_fused_weights_cannot_hold_are_refused(tiny_model):
    tiny = tiny_model("mixtral")
    shape = tiny.adapter.model_shape(tiny.model)
    with pytest.raises(UsageError, match="different numbers of channels"):
        check(hand_plans.plan_by_hand(shape, {}, {0: range(8)}))
    one_each = [40 * expert for expert in range(4)]
    with pytest.raises(UsageError, match="39 channels to each expert; keep a multiple of 8"):
        check(hand_plans.plan_by_hand(shape, {}, {0: one_each}))


def test_the_experts_of_a_block_come_nearer_to_the_dense_ones_together(tiny_model):
    """Not only each by itself: in OLMoE nothing else is cut before them."""
    tiny = tiny_model("olmoe")
    errors = {}
    for method in ("none", "refit", "full"):
        recipe = families.recipe(**FFN, recovery__method=method, recovery__rescore=False)
        run = prune(tiny, recipe)
        ids, outputs = recovery_windows(tiny, recipe).ids, []
        for model in (tiny.model, run.pruned.model):
            with families.seen({"mlp": model.model.layers[0].mlp}) as found:
                families.logits(model, ids)
            outputs.append(found["mlp"][1].double())
        errors[method] = (outputs[1] - outputs[0]).norm() / outputs[0].norm()
    assert errors["refit"] < 0.99 * errors["none"]
    assert errors["full"] < errors["none"]


@pytest.mark.parametrize("method", ["refit", "full", "bias", "none"])
@pytest.mark.parametrize("name", ["mixtral", "olmoe"])
def test_an_expert_without_tokens_is_cut_and_nothing_else(name, method):
    tiny = families.wrap(families.build(name), f"{name}-starved")
    for block in tiny.model.model.layers:
        # equal logits: the same experts see every token, whatever it says, and the others none
        block.mlp.gate.weight.data[:] = 0.0
    run = prune(tiny, families.recipe(**FFN, heads__ratio=0.3, recovery__method=method))
    measured = measure_model(tiny, run.recipe)
    unseen = 0
    for index, (dense, cut) in enumerate(
        zip(tiny.model.model.layers, run.pruned.model.model.layers, strict=True)
    ):
        counts = measured.blocks[index].ffn.statistics["expert_tokens"]
        for values in measured.blocks[index].ffn.statistics.values():
            assert np.isfinite(values).all()
        size = 40
        for expert in np.nonzero(counts == 0)[0].tolist():
            unseen += 1
            kept = [u % size for u in run.plan.blocks[index].ffn.kept if u // size == expert]
            rows = [*kept, *(c + size for c in kept)]
            before, after = dense.mlp.experts, cut.mlp.experts
            assert torch.equal(after.gate_up_proj[expert], before.gate_up_proj[expert][rows])
            assert torch.equal(after.down_proj[expert], before.down_proj[expert][:, kept])
            # chosen by what the block's other tokens would do there, not by chance
            assert measured.blocks[index].ffn.statistics["input_second_moment"].min() > 0.0
    assert unseen > 0
    assert torch.isfinite(families.logits(run.pruned.model, families.token_ids())).all()
    assert all(np.isfinite([e.error_before, e.error_after]).all() for e in run.events)


def _expert_fits(counts, held=40, seed=0):
    """One expert per count: a true change of its weights and noisy outputs at so many tokens."""
    generator = torch.Generator().manual_seed(seed)
    fits, truth = [], []
    for count in counts:
        present = torch.randn(12, 6, generator=generator, dtype=torch.float64)
        real = present + 0.3 * torch.randn(12, 6, generator=generator, dtype=torch.float64)
        parts = []
        for tokens in (count, min(held, count)):
            x = torch.randn(tokens, 12, generator=generator, dtype=torch.float64)
            noise = torch.randn(tokens, 6, generator=generator, dtype=torch.float64)
            equations = NormalEquations.zeros(12, 6, torch.device("cpu"))
            equations.add(x, x @ real + 2.0 * noise)
            parts.append(equations)
        fits.append(OutputProjectionFit(*parts, present, None, torch.arange(12), "auto", False))
        truth.append(real)
    return ExpertFit(tuple(fits)), truth


@pytest.mark.parametrize("seed", range(4))
def test_experts_with_few_tokens_lean_on_their_present_weights(seed):
    """As many tokens as channels, and noise larger than what there is to learn."""
    fits, truth = _expert_fits([2000, 500, 13, 0], seed=seed)
    fitted = fits.refitted().weight.split(12)
    left = [
        ((weight - real).norm() / (layer.weight - real).norm()).item()
        for weight, layer, real in zip(fitted, fits.layers, truth, strict=True)
    ]
    assert left[0] < 0.2 and left[0] < left[1] < left[2] < 1.0  # none is worse than untouched
    assert torch.equal(fitted[3], fits.layers[3].weight)


def test_the_ridge_of_all_experts_is_the_same_per_mean_token():
    fits, _ = _expert_fits([100, 300])
    fitting = [layer.fitting for layer in fits.layers]
    assert relative(0.5, fitting) == [pytest.approx(1.0), pytest.approx(1.0 / 3.0)]
    # and never less than as many tokens as there are channels
    assert relative(0.01, fitting) == [pytest.approx(12 / 100), pytest.approx(12 / 300)]


def test_experts_that_saw_nothing_at_all_are_cut_without_nan():
    fits, _ = _expert_fits([0, 0])
    for fit in (fits.refitted(), fits.cut(), fits.compensated()):
        assert torch.equal(fit.weight, torch.cat([layer.weight for layer in fits.layers]))
        assert fit.error == 0.0 and fit.bias is None


@pytest.mark.parametrize("name", ["qwen2_moe_some_blocks", "olmoe"])
def test_a_budget_is_kept_and_the_expected_loss_decides(tiny_model, name):
    tiny = tiny_model(name)
    changes = {"budget": {"kept": 0.8, "of": "blocks"}, "recovery__method": "none"}
    for allocation in ("uniform", "adaptive", "predicted"):
        run = prune(tiny, families.recipe(**changes, allocation=allocation))
        assert 0.5 < run.plan.kept_block_parameters <= 0.8, allocation
        assert run.report.after.parameters == sum(p.numel() for p in run.pruned.model.parameters())


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe"])
def test_each_token_passes_its_experts_once(name, tiny_model, monkeypatch):
    """Measured, or in a prune in each stream; the cut experts run once more on the pruned one.
    Other dense experts than its own see a token only where the pruned stream sends it to them."""
    tiny, passes = tiny_model(name), {}

    def counted(owner, tokens):
        passes[id(owner)] = passes.get(id(owner), 0) + tokens

    in_proj, whole = Mixture.in_proj, type(tiny.model.model.layers[0].mlp.experts).forward

    def one(mixture, expert, hidden):
        counted(mixture.module, len(hidden))
        return in_proj(mixture, expert, hidden)

    def all_at_once(experts, hidden, chosen, shares):
        counted(experts, chosen.numel())
        return whole(experts, hidden, chosen, shares)

    recipe = families.recipe(**FFN, recovery__scope="pruned")
    windows = families.windows(tiny, samples=20)
    plan = pruning.make_plan(measure_model(tiny, recipe), recipe)
    monkeypatch.setattr(Mixture, "in_proj", one)
    monkeypatch.setattr(type(tiny.model.model.layers[0].mlp.experts), "forward", all_at_once)
    monkeypatch.setattr("pruning.measure.forward_pass.FEW_TOKENS", 1)
    due = windows.ids.numel() * tiny.model.config.num_experts_per_tok
    experts = [block.mlp.experts for block in tiny.model.model.layers]
    measure(tiny.model, windows, name="tiny")
    # the frame of the model runs the first block once before, on a single window
    assert [passes.pop(id(owner)) for owner in experts[1:]] == [due] * (families.BLOCKS - 1)
    passes.clear()
    done = apply(tiny.model, plan, recipe, windows)
    cut = done.model.model.layers[-1].mlp.experts
    assert passes[id(cut)] == 2 * due
    assert due <= passes[id(experts[-1])] < 2 * due
    once = windows.ids.shape[1] * tiny.model.config.num_experts_per_tok
    assert passes[id(experts[0])] == due + once  # nothing is cut before: the same routing
