"""What every family must satisfy exactly: one class, run over families and seeds."""

from __future__ import annotations

import inspect
from contextlib import nullcontext

import numpy as np
import pytest
import torch

import pruning
from pruning.artifacts.plan import check
from pruning.measure.windows import recovery_windows
from pruning.models.execution.blockwise import attention_implementation, block_contexts, embed
from pruning.models.loading.memory_estimate import estimate
from pruning.pipeline import measure_model, prune
from pruning.utils.errors import UsageError
from tests.helpers import counting, families, hand_plans

SEEDS = (0, 1)
CUTS = {
    "heads": {"heads__ratio": 0.4, "heads__policy": "query"},
    "key/value groups": {"heads__ratio": 0.5, "heads__policy": "kv_group"},
    "channels": {"ffn__ratio": 0.3},
}
REFIT = {
    "heads__ratio": 0.4,
    "ffn__ratio": 0.4,
    "calibration__samples": 20,
    "recovery__intercept": "add",
    "recovery__damping": 0.1,
}


@pytest.fixture(params=families.EVERY_FAMILY, scope="module")
def family(request):
    return request.param


@pytest.fixture(params=SEEDS, scope="module")
def tiny(request, family, tiny_model):
    return tiny_model(family, request.param)


@pytest.fixture(scope="module")
def uneven(tiny):
    """Other widths in every block, nothing repaired."""
    return prune(tiny, families.recipe(**families.PLAIN), plan=hand_plans.uneven_plan(tiny))


@pytest.fixture(scope="module")
def refitted(tiny):
    """Heads and channels cut, out_proj refitted, biases added."""
    return prune(tiny, families.recipe(**REFIT))


@pytest.fixture(scope="module")
def saved(refitted, tmp_path_factory):
    return pruning.save(refitted, tmp_path_factory.mktemp("saved") / "model")


class TestConformance:
    def test_modules_compose_to_the_forward_pass(self, tiny):
        model, adapter, ids = tiny.model, tiny.adapter, families.token_ids()
        blocks = adapter.blocks(model)
        with families.seen({"last": blocks[-1]}) as found:
            families.logits(model, ids)
        hidden = embed(model, adapter, ids)
        with torch.no_grad():
            contexts = block_contexts(model, adapter, ids.shape[1])
            for block, context in zip(blocks, contexts, strict=True):
                entering = hidden
                hidden = hidden + adapter.run_attention(block, entering, context)[0]
                reads = entering if adapter.parallel(block) else hidden
                hidden = hidden + adapter.run_ffn(block, reads)
        torch.testing.assert_close(hidden, found["last"][1], atol=1e-5, rtol=1e-5)

    def test_the_measuring_pass_sees_the_models_own_stream(self, tiny):
        """Eager attention gives the same stream as the kernel that the model runs with."""
        ids, adapter = families.token_ids(), tiny.adapter
        block = adapter.blocks(tiny.model)[-1]
        with families.seen({"block": block}) as found:
            families.logits(tiny.model, ids)
        with attention_implementation(tiny.model, "eager"), torch.no_grad():
            context = block_contexts(tiny.model, adapter, ids.shape[1])[-1]
            added, probabilities = adapter.run_attention(block, found["block"][0], context)
        context = block_contexts(tiny.model, adapter, ids.shape[1])[-1]
        with torch.no_grad():
            expected = adapter.run_attention(block, found["block"][0], context)[0]
        torch.testing.assert_close(added, expected, atol=1e-5, rtol=1e-5)
        assert probabilities.shape == (3, adapter.attention(block).units, 20, 20)
        assert (probabilities.triu(1) == 0).all()
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(probabilities.shape[:3]))

    def test_ratio_zero_changes_nothing(self, tiny):
        run = prune(tiny, families.recipe())
        ids = families.token_ids()
        assert run.plan.is_empty and run.events == ()
        assert torch.equal(families.logits(run.pruned.model, ids), families.logits(tiny.model, ids))
        assert run.report.kept_block_parameters == 1.0

    def test_the_shape_is_counted_on_the_real_tensors(self, tiny, uneven, refitted):
        counting.check_counts(tiny, refitted.report.before)
        counting.check_counts(uneven.pruned, uneven.report.after)
        counting.check_counts(refitted.pruned, refitted.report.after)

    @pytest.mark.parametrize("cut", CUTS)
    def test_pruned_equals_masked(self, tiny, cut):
        fixed = tiny.adapter.model_shape(tiny.model).fixed
        run = prune(tiny, families.recipe(**CUTS[cut], **families.PLAIN))
        if cut != "channels" and "attention" in fixed:
            assert run.plan.is_empty
            return
        assert not run.plan.is_empty
        ids = families.token_ids()
        with families.masked(tiny, run.plan) as model:
            expected = families.logits(model, ids)
        assert (expected - families.logits(tiny.model, ids)).abs().max() > 1e-2
        got = families.logits(run.pruned.model, ids)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("kernel", ["eager", "sdpa"])
    def test_uneven_widths_equal_masked(self, tiny, uneven, kernel):
        own = kernel == "sdpa" and not type(tiny.model)._supports_sdpa
        ids, pruned = families.token_ids(), uneven.pruned.model
        with families.masked(tiny, uneven.plan) as model:
            with nullcontext() if own else attention_implementation(model, kernel):
                expected = families.logits(model, ids)
        with nullcontext() if own else attention_implementation(pruned, kernel):
            got = families.logits(pruned, ids)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)

    def test_what_is_fixed_is_said_and_left_alone(self, tiny):
        shape = tiny.adapter.model_shape(tiny.model)
        assert shape.fixed == dict(tiny.adapter.fixed)
        assert all(reason.endswith(".") for reason in shape.fixed.values())
        measured = measure_model(tiny, families.recipe())
        recipe = families.recipe(heads__ratio=0.4, heads__threshold=0.6, ffn__ratio=0.4)
        plan = pruning.make_plan(measured, recipe)
        for kind in ("attention", "ffn"):
            removed = [len(block.module(kind).removed) for block in plan.blocks]
            assert (max(removed) == 0) == (kind in shape.fixed)
        check(pruning.Plan.from_json(plan.to_json()))
        for kind in shape.fixed:
            with pytest.raises(UsageError, match="cannot lose units"):
                cut = hand_plans.module_by_hand(0, shape.blocks[0].module(kind), [0])
                check(plan.with_module(cut))

    def test_divergence_is_a_divergence(self, tiny):
        measured = measure_model(tiny, families.recipe())
        for block in measured.blocks:
            divergence = block.divergence
            assert np.array_equal(divergence, divergence.T)
            assert (np.diag(divergence) == 0.0).all()
            assert (divergence >= 0.0).all() and (divergence <= np.float32(np.log(2.0))).all()
            assert divergence.max() > 0.01  # the tiny models do not attend uniformly

    def test_refitting_lowers_every_modules_error(self, tiny, refitted):
        assert len(refitted.events) >= 2 * families.BLOCKS - 1
        slack = 1 + 1e-9
        assert all(event.error_after <= event.error_before * slack for event in refitted.events)
        assert any(event.error_after < 0.9 * event.error_before for event in refitted.events)
        # nothing was cut before the first module, so its error can be counted from outside
        event, ids = refitted.events[0], recovery_windows(tiny, refitted.recipe).ids
        modules = [
            loaded.adapter.module(loaded.adapter.blocks(loaded.model)[event.block], event.kind)
            for loaded in (tiny, refitted.pruned)
        ]
        if modules[0].mixture:
            with families.seen({"experts": modules[0].mixture.module}) as found:
                families.logits(tiny.model, ids)
            error = counting.error_of_experts(*modules, event.removed, *found["experts"])
            assert event.error_after == pytest.approx(error, rel=1e-3)
            return
        dense, cut = (module.out_proj for module in modules)
        with families.seen({"out_proj": dense}) as found:
            families.logits(tiny.model, ids)
        x, target = (tensor.double() for tensor in found["out_proj"])
        width = modules[0].unit_width
        gone = [unit * width + place for unit in event.removed for place in range(width)]
        kept = [place for place in range(x.shape[-1]) if place not in gone]
        output = x[..., kept] @ families.matrix(cut).T + cut.bias.double()
        error = (output - target).square().sum() / target.square().sum()
        assert event.error_after == pytest.approx(error.item(), rel=1e-3)

    def test_cached_generation_equals_uncached(self, uneven):
        ids = families.token_ids(2, 6)
        wanted = {"do_sample": False, "max_new_tokens": 16, "min_new_tokens": 16, "pad_token_id": 0}
        mask, model = torch.ones_like(ids), uneven.pruned.model
        cached = model.generate(input_ids=ids, attention_mask=mask, use_cache=True, **wanted)
        plain = model.generate(input_ids=ids, attention_mask=mask, use_cache=False, **wanted)
        assert cached.shape == (2, 22)
        assert torch.equal(cached, plain)

    def test_saved_and_loaded_logits_are_bit_equal(self, refitted, saved):
        loaded, ids = pruning.load(str(saved), device="cpu"), families.token_ids()
        expected = families.logits(refitted.pruned.model, ids)
        assert torch.equal(families.logits(loaded.model, ids), expected)
        assert refitted.report.after.parameters == sum(p.numel() for p in loaded.model.parameters())

    def test_a_pruned_model_is_pruned_again(self, uneven):
        """Widths, kept position slopes and norms per head follow from the live model."""
        dense = families.wrap(uneven.pruned.model, f"{uneven.dense.identity}-uneven")
        again = prune(dense, families.recipe(heads__ratio=0.4, ffn__ratio=0.2, **families.PLAIN))
        ids = families.token_ids()
        with families.masked(dense, again.plan) as model:
            expected = families.logits(model, ids)
        got = families.logits(again.pruned.model, ids)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
        counting.check_counts(again.pruned, again.report.after)

    def test_the_estimate_counts_every_parameter(self, tiny, refitted, saved, tmp_path):
        tiny.model.config.save_pretrained(tmp_path)
        dense = estimate(str(tmp_path), device="cpu")
        assert dense.parameters == sum(p.numel() for p in tiny.model.parameters())
        assert dense.weight_bytes == 4 * dense.parameters
        assert estimate(str(saved), device="cpu").parameters == refitted.report.after.parameters

    def test_a_batch_equals_its_rows(self, refitted):
        ids, model = families.token_ids(4, 17), refitted.pruned.model
        together = families.logits(model, ids)
        single = torch.cat([families.logits(model, row[None]) for row in ids])
        torch.testing.assert_close(together, single, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_padding_changes_nothing(self, refitted, side):
        ids, model, pad = families.token_ids(2, 11), refitted.pruned.model, 5
        expected = families.logits(model, ids)
        filler = torch.zeros(2, pad, dtype=torch.long)
        parts = [filler, ids] if side == "left" else [ids, filler]
        real = slice(pad, None) if side == "left" else slice(0, 11)
        padded = torch.cat(parts, dim=1)
        mask = torch.zeros_like(padded)
        mask[:, real] = 1
        options = {"attention_mask": mask}
        if "position_ids" in inspect.signature(model.forward).parameters:
            options["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)
        got = families.logits(model, padded, **options)
        torch.testing.assert_close(got[:, real], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_bfloat16(family, seed, tiny_model, tmp_path):
    """Nothing changes at ratio 0; a cut is that of the masked model, finite, stays bfloat16 and
    survives the disk."""
    tiny_model(family, seed).model.save_pretrained(tmp_path / "dense")
    small = pruning.load(str(tmp_path / "dense"), dtype="bfloat16", device="cpu")
    ids = families.token_ids()
    expected = families.logits(small.model, ids)
    nothing = prune(small, families.recipe()).pruned.model
    assert torch.equal(families.logits(nothing, ids), expected)
    cut = prune(small, families.recipe(**families.PLAIN), plan=hand_plans.uneven_plan(small))
    with families.masked(small, cut.plan) as model:
        masked = families.logits(model, ids)
    assert apart(families.logits(cut.pruned.model, ids), masked) < 0.5 * apart(expected, masked)
    run = prune(small, families.recipe(**REFIT))
    model = run.pruned.model
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    logits = families.logits(model, ids)
    assert torch.isfinite(logits).all()
    assert torch.isfinite(torch.tensor([event.error_after for event in run.events])).all()
    loaded = pruning.load(str(pruning.save(run, tmp_path / "pruned")), device="cpu")
    assert loaded.dtype == "bfloat16"
    assert torch.equal(families.logits(loaded.model, ids), logits)


def apart(one, other):
    """Root mean square difference."""
    return (one.float() - other.float()).square().mean().sqrt().item()
