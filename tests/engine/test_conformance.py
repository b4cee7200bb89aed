"""What every family must satisfy exactly: one class, run over families and seeds."""

from __future__ import annotations

import families
import numpy as np
import pytest
import torch

from pruning.apply import apply
from pruning.errors import Cancelled
from pruning.pipeline import measure_model, prune, windows_for
from pruning.streaming import attention_implementation, block_contexts, embed

CASES = [(family, seed) for family in families.FAMILIES for seed in (0, 1)]
CUTS = {
    "query heads": {"heads__ratio": 0.4, "heads__policy": "query"},
    "groups": {"heads__ratio": 0.5, "heads__policy": "kv_group"},
    "channels": {"ffn__ratio": 0.3},
    "similar heads and channels": {"heads__threshold": 0.3, "ffn__ratio": 0.5},
}
PLAIN = {"recovery__method": "none", "recovery__rescore": False}


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}", scope="module")
def tiny(request, tiny_model):
    return tiny_model(*request.param)


class TestConformance:
    def test_modules_compose_to_the_forward_pass(self, tiny):
        model, adapter, ids = tiny.model, tiny.adapter, families.token_ids()
        contexts = block_contexts(model, adapter, ids.shape[1])
        hidden = embed(model, adapter, ids)
        with torch.no_grad():
            for block, context in zip(adapter.blocks(model), contexts, strict=True):
                hidden = hidden + adapter.run_attention(block, hidden, context)[0]
                hidden = hidden + adapter.run_ffn(block, hidden)
            backbone = adapter.backbone(model)
            norm = backbone.norm if hasattr(backbone, "norm") else backbone.ln_f
            composed = model.get_output_embeddings()(norm(hidden))
        torch.testing.assert_close(composed, families.logits(model, ids), atol=1e-5, rtol=0)

    @pytest.mark.parametrize("method", ["none", "bias", "refit", "reconstruct", "full"])
    def test_ratio_zero_changes_nothing(self, tiny, method):
        run = prune(tiny, families.recipe(recovery__method=method))
        ids = families.token_ids()
        assert run.plan.is_empty and run.events == ()
        assert torch.equal(families.logits(run.pruned.model, ids), families.logits(tiny.model, ids))
        assert run.report.kept_block_parameters == 1.0

    @pytest.mark.parametrize("cut", CUTS)
    def test_pruned_equals_masked(self, tiny, cut):
        run = prune(tiny, families.recipe(**CUTS[cut], **PLAIN))
        assert not run.plan.is_empty
        ids = families.token_ids()
        with families.masked(tiny, run.plan) as model:
            expected = families.logits(model, ids)
        assert (expected - families.logits(tiny.model, ids)).abs().max() > 1e-2
        got = families.logits(run.pruned.model, ids)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("kernel", ["eager", "sdpa"])
    def test_uneven_widths_equal_masked(self, tiny, kernel):
        plan = families.uneven_plan(tiny)
        recipe = families.recipe(**PLAIN)
        pruned = apply(tiny.model, plan, recipe, windows_for(tiny, recipe)).model
        ids = families.token_ids()
        with families.masked(tiny, plan) as model, attention_implementation(model, kernel):
            expected = families.logits(model, ids)
        with attention_implementation(pruned, kernel):
            got = families.logits(pruned, ids)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("cut", CUTS)
    def test_counts_are_those_of_the_real_tensors(self, tiny, cut):
        run = prune(tiny, families.recipe(**CUTS[cut], recovery__method="bias"))
        _check_counts(run.dense, run.report.before, run.plan.shape)
        _check_counts(run.pruned, run.report.after, run.plan.shape)

    def test_divergence_is_a_divergence(self, tiny):
        measured = measure_model(tiny, families.recipe())
        for block in measured.blocks:
            divergence = block.divergence
            assert np.array_equal(divergence, divergence.T)
            assert (np.diag(divergence) == 0.0).all()
            assert (divergence >= 0.0).all() and (divergence <= np.float32(np.log(2.0))).all()
            assert divergence.max() > 0.01  # the tiny models do not attend uniformly

    def test_the_dense_model_survives_a_run(self, tiny):
        before, ids = families.snapshot(tiny.model), families.token_ids()
        expected = families.logits(tiny.model, ids)
        kernel = tiny.model.config._attn_implementation
        prune(tiny, families.recipe(heads__ratio=0.4, ffn__ratio=0.4, recovery__method="full"))
        assert families.unchanged(tiny.model, before)
        assert torch.equal(families.logits(tiny.model, ids), expected)
        assert tiny.model.config._attn_implementation == kernel
        assert not hasattr(tiny.model.config, "headroom")

    @pytest.mark.parametrize("steps", [0, 1, 2, 4, 7])
    def test_the_dense_model_survives_a_cancelled_run(self, tiny, steps):
        before, ids = families.snapshot(tiny.model), families.token_ids()
        expected = families.logits(tiny.model, ids)
        kernel = tiny.model.config._attn_implementation
        recipe = families.recipe(
            heads__ratio=0.4, ffn__ratio=0.4, recovery__method="full", seed=1000 + steps
        )  # a seed of its own: no cached measurement shortens the run
        calls = iter(range(100))
        with pytest.raises(Cancelled):
            prune(tiny, recipe, should_cancel=lambda: next(calls) >= steps)
        assert families.unchanged(tiny.model, before)
        assert torch.equal(families.logits(tiny.model, ids), expected)
        assert tiny.model.config._attn_implementation == kernel

    @pytest.mark.parametrize("method", ["none", "bias", "refit", "reconstruct", "full"])
    def test_the_same_recipe_gives_the_same_tensors(self, tiny, method):
        recipe = families.recipe(heads__ratio=0.4, ffn__ratio=0.4, recovery__method=method)
        first, second = prune(tiny, recipe), prune(tiny, recipe)
        assert families.unchanged(second.pruned.model, first.pruned.model.state_dict())
        assert first.plan == second.plan and first.widths == second.widths

    def test_another_seed_calibrates_on_other_tokens(self, tiny):
        runs = [prune(tiny, families.recipe(ffn__ratio=0.4, seed=seed)) for seed in (0, 1)]
        one, other = (run.pruned.model.state_dict() for run in runs)
        assert any(one[k].shape != other[k].shape or not torch.equal(one[k], other[k]) for k in one)


def _check_counts(loaded, footprint, shape):
    """Count parameters, bytes and FLOPs on live tensors and compare."""
    model, adapter = loaded.model, loaded.adapter
    parameters = sum(p.numel() for p in model.parameters())
    in_blocks = sum(p.numel() for p in adapter.blocks(model).parameters())
    assert footprint.parameters == parameters
    assert footprint.block_parameters == in_blocks
    assert footprint.bytes == sum(p.numel() * p.element_size() for p in model.parameters())
    matrices = [p for p in adapter.blocks(model).parameters() if p.dim() == 2]
    products = sum(p.numel() for p in matrices) + model.get_output_embeddings().weight.numel()
    for block in adapter.blocks(model):
        inner = adapter.attention(block).level2.weight.numel() // shape.hidden_size
        products += 2 * inner * footprint.context
    assert footprint.flops_per_token == 2 * products
