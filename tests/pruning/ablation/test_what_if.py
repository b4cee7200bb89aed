"""Units switched off by masks, against plain transformers with their weights zeroed by hand."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.nn import functional

from pruning.ablation import leave_one_out, masks_for, read, what_if
from pruning.ablation import reading as reading_module
from pruning.ablation.masks import BlockMask
from pruning.artifacts.ablation import Ablation
from pruning.artifacts.recipe import Recipe
from pruning.models.loading import load
from pruning.pipeline import measure_model
from pruning.planning.analysis import rank_correlation
from pruning.planning.channels import plan_channels
from pruning.surgery.apply import apply
from pruning.utils.errors import Cancelled, SourceError, UsageError
from tests.helpers.families import EVERY_FAMILY, PLAIN, recipe, snapshot, unchanged, windows
from tests.helpers.hand_plans import in_every_expert, plan_by_hand

SENTENCE = "The river and the water"
SHORT = {"seq_len": 20, "windows": 2}
OUTPUTS = ("o_proj", "out_proj", "c_proj", "dense")
DOWN = ("down_proj", "c_proj", "fc2", "fc_out", "dense_4h_to_h")


def layer(block, parts, names):
    """The layer of ``block`` by one of its usual names, in one of the modules ``parts``."""
    owner = next((getattr(block, part) for part in parts if hasattr(block, part)), block)
    return next(getattr(owner, name) for name in names if hasattr(owner, name))


def silenced(model, heads=(), channels=(), whole=()):
    """A copy of a plain transformers model that has the columns of these ``(block, head)`` and
    ``(block, channel)`` zeroed, and blocks ``whole`` passing on what enters them."""
    model = copy.deepcopy(model)
    blocks = model.base_model
    blocks = getattr(getattr(blocks, "decoder", blocks), "layers", None) or model.base_model.h
    count = model.config.num_attention_heads
    for block, head in heads:
        out = layer(blocks[block], ("self_attn", "attn", "attention", "self_attention"), OUTPUTS)
        weight = out.weight.data if type(out).__name__ == "Conv1D" else out.weight.data.T
        width = len(weight) // count
        weight[head * width : (head + 1) * width] = 0.0
    for block, channel in channels:
        mlp = getattr(blocks[block], "mlp", blocks[block])
        if hasattr(mlp, "experts"):
            down = mlp.experts.down_proj.data
            down[channel // down.shape[2], :, channel % down.shape[2]] = 0.0
            continue
        out = layer(blocks[block], ("mlp",), DOWN)
        weight = out.weight.data if type(out).__name__ == "Conv1D" else out.weight.data.T
        weight[channel] = 0.0
    for block in whole:
        blocks[block].forward = passing(blocks[block].forward)
    return model


def passing(forward):
    def call(hidden, *args, **kwargs):
        output = forward(hidden, *args, **kwargs)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    return call


@torch.no_grad()
def truth(dense, other, ids):
    """Mean loss of both, KL and JS over the tokens that windows [n, s] predict; log-probabilities
    behind the last place [2, vocabulary] of the last window."""
    p, q = (
        m(input_ids=ids, use_cache=False).logits.double().log_softmax(-1) for m in (dense, other)
    )
    losses = [
        functional.nll_loss(side[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).item()
        for side in (p, q)
    ]
    middle = (0.5 * (p.exp() + q.exp())).log()

    def kl(a, b):
        return (a.exp() * (a - b)).sum(-1)

    js = 0.5 * (kl(p, middle) + kl(q, middle))
    return (*losses, kl(p, q)[:, :-1].mean().item(), js[:, :-1].mean().item()), p[-1, -1], q[-1, -1]


def agrees(found, reading, dense, other):
    text = torch.cat(reading.ids[:-1])
    expected, *_ = truth(dense, other, text)
    change = found.change
    got = (change.loss_before, change.loss_after, change.kl, change.js)
    assert got == pytest.approx(expected, abs=1e-5)
    assert change.tokens == text[:, 1:].numel()
    _, p, q = truth(dense, other, reading.ids[-1])
    assert found.next.kl == pytest.approx((p.exp() * (p - q)).sum().item(), abs=1e-5)
    top = p.exp().topk(8)
    assert [t.before for t in found.next.tokens[:8]] == pytest.approx(top.values.tolist(), abs=1e-5)
    assert max(t.after for t in found.next.tokens) == pytest.approx(q.exp().max().item(), abs=1e-5)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_masks_give_what_plain_transformers_gives(reader, family):
    loaded = reader(family)
    model, shape = loaded.model, loaded.adapter.model_shape(loaded.model)
    before = snapshot(model)
    hooks = sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())
    reading = read(loaded, SENTENCE, **SHORT)
    last = shape.blocks[1].attention.units - 1
    gone = in_every_expert(shape.blocks[1].ffn, range(3, 12))
    masks = {1: BlockMask((0, last), tuple(gone)), 2: BlockMask(whole=True)}
    off = Ablation(heads=((1, 0), (1, last)))
    found = what_if(loaded, reading, off, masks)
    by_hand = silenced(model, [(1, 0), (1, last)], [(1, c) for c in gone], [2])
    agrees(found, reading, model, by_hand)
    assert found.change.kl > 1e-4
    # one head of the last block alone, which begins at another boundary
    found = what_if(loaded, reading, off, {2: BlockMask((1,))})
    agrees(found, reading, model, silenced(model, [(2, 1)]))
    assert unchanged(model, before)
    now = sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())
    assert now == hooks and not any("forward" in m.__dict__ for m in model.modules())


@pytest.mark.parametrize("family", ["llama_grouped", "llama_biased", "gpt2", "gemma2", "bloom"])
def test_a_mask_is_what_pruning_without_recovery_does(reader, family):
    loaded = reader(family)
    shape = loaded.adapter.model_shape(loaded.model)
    attention = shape.blocks[1].attention
    per_group = attention.units_per_group
    heads = [group * per_group for group in range(attention.groups if per_group > 1 else 1)]
    reading = read(loaded, SENTENCE, **SHORT)
    off = Ablation(heads=tuple((1, head) for head in heads))
    found = what_if(loaded, reading, off, masks_for(off, shape, None, Recipe()))
    plan = plan_by_hand(shape, {1: heads}, {})
    pruned = apply(loaded.model, plan, recipe(**PLAIN), windows(loaded)).model
    agrees(found, reading, loaded.model, pruned)


def test_a_share_of_the_ffn_is_what_the_recipe_would_take(reader):
    loaded = reader("llama_grouped")
    shape = loaded.adapter.model_shape(loaded.model)
    measured = measure_model(loaded, recipe())
    score = measured.blocks[2].ffn.statistics
    score = 0.5 * score["level2_sq"].astype(float) * score["input_second_moment"]
    weakest = np.argsort(score, kind="stable")[:11]
    off = Ablation(ffn=((2, 0.3),))
    masks = masks_for(off, shape, measured, Recipe())
    assert masks == {2: BlockMask(channels=tuple(sorted(weakest.tolist())))}
    planned = plan_channels(2, shape.blocks[2].ffn, score, "second_moment_exact", 0.3)
    assert masks[2].channels == planned.removed
    whole = masks_for(Ablation(ffn=((2, 1.0),)), shape, None, Recipe())
    assert whole == {2: BlockMask(channels=tuple(range(37)))}
    both = Ablation(heads=((1, 2), (2, 0)), ffn=((2, 0.3),), blocks=(2,))
    assert masks_for(both, shape, measured, Recipe()) == {
        1: BlockMask((2,)),
        2: BlockMask(whole=True),
    }


def test_nothing_off_changes_nothing(reader):
    loaded = reader("gpt2")
    reading = read(loaded, SENTENCE, **SHORT)
    found = what_if(loaded, reading, Ablation(), {})
    assert found.change.kl == found.change.rise == 0.0
    assert found.change.js == pytest.approx(0.0, abs=1e-7)
    assert found.next.kl == 0.0 and len(found.next.tokens) == 8
    assert "".join(found.passages[0].pieces).startswith("The")
    assert "2 windows of 20 tokens" in found.protocol and "sample" in found.protocol


@pytest.mark.parametrize("family", ["llama_grouped", "bloom", "mixtral"])
def test_every_head_alone_and_what_foretold_it(reader, family):
    loaded = reader(family)
    reading = read(loaded, SENTENCE, **SHORT)
    measured = measure_model(loaded, recipe())
    found = leave_one_out(loaded, reading, 1, measured)
    text = torch.cat(reading.ids[:-1])
    for head, change in enumerate(found.changes):
        expected, *_ = truth(loaded.model, silenced(loaded.model, [(1, head)]), text)
        got = (change.loss_before, change.loss_after, change.kl, change.js)
        assert got == pytest.approx(expected, abs=1e-5)
    real = [change.kl for change in found.changes]
    named = {predictor.name: predictor for predictor in found.predictors}
    assert {"nearest", "second_moment", "l1"} <= named.keys() and "fisher" not in named
    apart = measured.blocks[1].divergence + np.eye(len(real))
    assert named["nearest"].values == pytest.approx(apart.min(1))
    for predictor in found.predictors:
        expected = spearmanr(predictor.values, real).statistic
        assert predictor.rank_correlation == pytest.approx(expected)
    assert leave_one_out(loaded, reading, 1).predictors == ()


def test_ranks_share_their_places():
    first, second = np.array([3.0, 1.0, 1.0, 2.0]), np.array([0.1, 0.4, 0.3, 0.3])
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert rank_correlation(first, np.ones(4)) is None


@pytest.mark.parametrize(
    ("off", "words"),
    [
        (Ablation(heads=((3, 0),)), "no block 3"),
        (Ablation(heads=((1, 6),)), "no head 6"),
        (Ablation(ffn=((0, 1.5),)), "share 1.5"),
        (Ablation(blocks=(-1,)), "no block -1"),
        (Ablation(ffn=((0, 0.5),)), "measure the model"),
    ],
)
def test_what_is_not_there_is_one_sentence(reader, off, words):
    loaded = reader("llama_grouped")
    with pytest.raises(UsageError, match=words):
        masks_for(off, loaded.adapter.model_shape(loaded.model), None, Recipe())


def test_readings_that_cannot_be(reader):
    loaded = reader("llama_grouped")
    for wrong, words in (
        ({"windows": 0}, "windows"),
        ({"seq_len": 1}, "at least 2"),
        ({"seq_len": 49}, "48 positions"),
        ({"sentence": " "}, "empty"),
        ({"sentence": "water " * 60}, "shorten it to 48"),
    ):
        with pytest.raises(UsageError, match=words):
            read(loaded, **{"sentence": SENTENCE, **SHORT, **wrong})
    with pytest.raises(SourceError, match="no tokenizer"):
        read(replace(loaded, tokenizer=None), SENTENCE, **SHORT)
    reading = read(loaded, SENTENCE, **SHORT)
    other = measure_model(reader("gpt2"), recipe())
    with pytest.raises(UsageError, match="another model"):
        leave_one_out(loaded, reading, 1, other)
    with pytest.raises(UsageError, match="another model"):
        what_if(reader("gpt2"), reading, Ablation(blocks=(0,)), {0: BlockMask(whole=True)})


def test_what_is_not_kept_is_made_again(reader, monkeypatch):
    loaded, masks = reader("gemma2"), {1: BlockMask((0,))}
    kept = read(loaded, SENTENCE, **SHORT)
    monkeypatch.setattr(reading_module, "KEPT_BYTES", 0)
    small = read(loaded, SENTENCE, **SHORT)
    assert kept.likely and not small.likely
    size = 4 * sum(ids.numel() for ids in kept.ids) * loaded.model.config.vocab_size
    assert kept.nbytes - small.nbytes == size
    found = [what_if(loaded, r, Ablation(), masks).change for r in (kept, small)]
    assert found[0] == found[1]


def test_blocks_that_wait_on_disk(model_folder):
    """Each is brought for the time that it is used, with its mask."""
    found = []
    for placement in ("whole", "disk"):
        loaded = load(str(model_folder), device="cpu", placement=placement)
        reading = read(loaded, SENTENCE, **SHORT)
        masks = {0: BlockMask((1,)), 1: BlockMask(whole=True), 2: BlockMask(channels=(3, 4))}
        found.append(what_if(loaded, reading, Ablation(), masks).change)
        found.append(leave_one_out(loaded, reading, 1).changes)
    assert found[:2] == found[2:]


def test_cancelling_leaves_the_model_as_it_was(reader):
    loaded = reader("qwen3_moe")
    reading, before = read(loaded, SENTENCE, **SHORT), snapshot(loaded.model)
    asked = iter([False, True])
    with pytest.raises(Cancelled):
        masks = {0: BlockMask((0,), (1, 2))}
        what_if(loaded, reading, Ablation(), masks, should_cancel=lambda: next(asked))
    assert unchanged(loaded.model, before)
    assert not any("forward" in m.__dict__ for m in loaded.model.modules())
    assert not any(m._forward_pre_hooks for m in loaded.model.modules())
