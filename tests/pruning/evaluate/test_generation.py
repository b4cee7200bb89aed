"""A pruned model with other widths in every block behaves like any other language model."""

from __future__ import annotations

import logging

import pytest
import torch
from transformers.utils import logging as told

from pruning.measure.windows import windows_for
from pruning.models.execution.kv_cache import CachedReader
from pruning.surgery.apply import apply
from tests.helpers import families, hand_plans


@pytest.fixture(params=families.FAMILIES, scope="module")
def pruned(request, tiny_model):
    tiny = tiny_model(request.param)
    recipe = families.recipe(recovery__method="refit")
    done = apply(tiny.model, hand_plans.uneven_plan(tiny), recipe, windows_for(tiny, recipe))
    heads = {width.heads for width in done.widths}
    assert len(heads) > 1 and len({width.channels for width in done.widths}) == families.BLOCKS
    return done.model


def test_cached_generation_equals_uncached(pruned):
    ids = families.token_ids(2, 6)
    wanted = {"do_sample": False, "max_new_tokens": 16, "min_new_tokens": 16, "pad_token_id": 0}
    mask = torch.ones_like(ids)
    cached = pruned.generate(input_ids=ids, attention_mask=mask, use_cache=True, **wanted)
    plain = pruned.generate(input_ids=ids, attention_mask=mask, use_cache=False, **wanted)
    assert cached.shape == (2, 22)
    assert torch.equal(cached, plain)


def test_cached_logits_equal_those_of_the_whole_text(pruned):
    ids = families.token_ids(2, 12)
    expected, reader = families.logits(pruned, ids), CachedReader(pruned)
    with torch.no_grad():
        steps = [reader.read(ids[:, place : place + 1]) for place in range(ids.shape[1])]
    torch.testing.assert_close(torch.cat(steps, 1), expected, atol=1e-4, rtol=1e-4)


def test_a_batch_equals_its_rows(pruned):
    ids = families.token_ids(5, 17)
    together = families.logits(pruned, ids)
    single = torch.cat([families.logits(pruned, row[None]) for row in ids])
    torch.testing.assert_close(together, single, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_left_padding_changes_nothing(pruned, kernel):
    ids = families.token_ids(2, 11)
    expected = families.logits(pruned, ids)
    pad = 5
    padded = torch.cat([torch.zeros(2, pad, dtype=torch.long), ids], dim=1)
    mask = torch.ones_like(padded)
    mask[:, :pad] = 0
    places = (mask.cumsum(1) - 1).clamp_min(0)
    before = pruned.config._attn_implementation
    pruned.config._attn_implementation = kernel
    try:
        got = families.logits(pruned, padded, attention_mask=mask, position_ids=places)
    finally:
        pruned.config._attn_implementation = before
    torch.testing.assert_close(got[:, pad:], expected, atol=1e-4, rtol=1e-4)


def test_the_future_is_not_seen(pruned):
    ids = families.token_ids(2, 14)
    changed = ids.clone()
    changed[:, 9:] = (changed[:, 9:] + 3) % families.VOCABULARY
    first, second = families.logits(pruned, ids), families.logits(pruned, changed)
    torch.testing.assert_close(first[:, :9], second[:, :9], atol=1e-6, rtol=0)
    assert not torch.allclose(first[:, 9:], second[:, 9:])


def test_reading_on_uses_no_name_that_is_going_away(pruned, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    getattr(told.warning_once, "cache_clear", lambda: None)()  # each warning is given only once
    with torch.no_grad():
        reader = CachedReader(pruned)
        reader.read(families.token_ids(1, 5))
        logits = reader.read(families.token_ids(1, 1), logits_to_keep=1)
    assert logits.shape == (1, 1, families.VOCABULARY)
    assert "deprecated" not in caplog.text
