"""Head similarity against independent implementations (method section 2)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from pruning.measure import measure
from pruning.measure.js_divergence import DivergenceSum
from pruning.planning.similarity import candidates, edges, group_divergence, weaker_candidates
from tests.helpers import families


@pytest.fixture(params=families.FAMILIES, scope="module")
def tiny(request, tiny_model):
    return tiny_model(request.param, 2)


def _attentions(model, ids):
    """``[blocks][n, heads, s, s]`` of the whole model under eager attention."""
    before = model.config._attn_implementation
    model.config._attn_implementation = "eager"
    try:
        with torch.no_grad():
            return model(input_ids=ids, output_attentions=True, use_cache=False).attentions
    finally:
        model.config._attn_implementation = before


def _by_scipy(patterns: np.ndarray) -> np.ndarray:
    """Mean over samples and positions of the squared Jensen-Shannon distance, natural log."""
    heads = patterns.shape[1]
    result = np.zeros((heads, heads))
    for i in range(heads):
        for j in range(heads):
            distance = jensenshannon(patterns[:, i], patterns[:, j], axis=-1)
            result[i, j] = np.mean(np.square(distance))
    return result


def test_the_sum_agrees_with_scipy(tiny):
    patterns = _attentions(tiny.model, families.token_ids(5, 18))[1]
    total = DivergenceSum(patterns.shape[1])
    total.add(patterns[:2])
    total.add(patterns[2:])
    expected = _by_scipy(patterns.double().numpy())
    assert expected.max() > 0.02
    np.testing.assert_allclose(total.result().numpy(), expected, atol=1e-6)


def test_the_measurement_agrees_with_scipy(tiny, monkeypatch):
    monkeypatch.setattr(
        "pruning.models.execution.blockwise.TOKENS_PER_BATCH", 40
    )  # several batches
    windows = families.windows(tiny, samples=7, seq_len=18)
    measured = measure(tiny.model, windows, name="tiny")
    for block, patterns in zip(measured.blocks, _attentions(tiny.model, windows.ids), strict=True):
        expected = _by_scipy(patterns.double().numpy())
        np.testing.assert_allclose(block.divergence, expected, atol=2e-6)


def test_how_many_samples_go_at_once_does_not_matter(monkeypatch):
    scores = torch.randn(7, 5, 9, 9, generator=torch.Generator().manual_seed(3))
    above = torch.ones(9, 9, dtype=torch.bool).triu(1)
    patterns = scores.masked_fill(above, -torch.inf).softmax(-1)
    results = []
    for entries in (1, 2 * 5 * 45, 10**6):
        monkeypatch.setattr("pruning.measure.js_divergence._ENTRIES", {True: entries})
        total = DivergenceSum(5)
        total.add(patterns)
        results.append(total.result())
    np.testing.assert_allclose(results[0], _by_scipy(patterns.double().numpy()), atol=1e-6)
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=1e-6)


def test_extreme_patterns():
    """Equal heads diverge by nothing, disjoint ones by ln 2 at every row but the first."""
    rows = 6
    first = torch.zeros(1, rows, rows)
    first[:, :, 0] = 1.0
    last = torch.eye(rows)[None]
    total = DivergenceSum(3)
    total.add(torch.stack([first, first, last], dim=1))
    result = total.result()
    assert result[0, 1] == 0.0
    assert result[0, 2].item() == pytest.approx(np.log(2.0) * (rows - 1) / rows, rel=1e-6)


def _algorithm_2(divergence, threshold):
    """The paper's double loop, letter by letter."""
    chosen = []
    for i in range(len(divergence)):
        for j in range(len(divergence)):
            if i != j and divergence[i][j] < threshold and i not in chosen and j not in chosen:
                chosen.append(i)
    return chosen


def _random_divergence(random, heads):
    matrix = random.uniform(0.0, np.log(2.0), (heads, heads)).astype(np.float32)
    matrix = np.triu(matrix, 1)
    return matrix + matrix.T


@pytest.mark.parametrize("heads", [1, 2, 3, 9, 32])
def test_algorithm_2_against_a_literal_one(heads):
    random = np.random.default_rng(heads)
    lengths = set()
    for threshold in (0.01, 0.1, 0.2, 0.35, 0.6, 0.7):
        for _ in range(20):
            divergence = _random_divergence(random, heads)
            found = candidates(divergence, threshold)
            assert [c.unit for c in found] == _algorithm_2(divergence, threshold)
            lengths.add(len(found))
    assert heads == 1 or len(lengths) > 1


def test_algorithm_2_leaves_no_two_like_heads():
    random = np.random.default_rng(5)
    for _ in range(100):
        divergence = _random_divergence(random, 12)
        gone: set[int] = set()
        for found in candidates(divergence, 0.15):
            assert found.divergence == divergence[found.unit, found.partner] < 0.15
            assert found.unit not in gone and found.partner not in gone
            gone.add(found.unit)
        left = [unit for unit in range(12) if unit not in gone]
        assert left
        rest = divergence[np.ix_(left, left)] + np.eye(len(left))
        assert (rest >= 0.15).all()


def test_the_weaker_one_goes_and_its_partner_stays():
    random, swapped, found_any = np.random.default_rng(6), 0, 0
    for _ in range(100):
        divergence, importance = _random_divergence(random, 12), random.random(12)
        found = weaker_candidates(divergence, 0.15, importance)
        gone = {candidate.unit for candidate in found}
        assert len(gone) == len(found)
        for c in found:
            assert c.divergence == divergence[c.unit, c.partner] < 0.15
            assert c.partner not in gone
            swapped += importance[c.unit] > importance[c.partner]  # only to keep a partner
            found_any += 1
        for i, j, _ in edges(divergence, 0.15):  # each like pair lost one, or serves others
            served = {c.partner for c in found}
            assert i in gone or j in gone or {i, j} <= served
    assert found_any > 100 and swapped < found_any / 4


def test_of_an_isolated_pair_the_weaker_goes():
    divergence = np.full((4, 4), 0.6, np.float32)
    np.fill_diagonal(divergence, 0.0)
    divergence[1, 3] = divergence[3, 1] = 0.1
    for importance, weaker in (([1, 1, 2, 3], 1), ([1, 4, 2, 3], 3)):
        (found,) = weaker_candidates(divergence, 0.2, np.array(importance, float))
        assert (found.unit, found.partner) == (weaker, 4 - weaker)
    (first,) = candidates(divergence, 0.2)
    assert (first.unit, first.partner) == (1, 3)


def test_candidates_leave_the_matrix_alone():
    divergence = _random_divergence(np.random.default_rng(0), 6)
    divergence.setflags(write=False)
    before = divergence.copy()
    candidates(divergence, 0.3)
    weaker_candidates(divergence, 0.3, np.arange(6.0))
    assert np.array_equal(divergence, before)


def test_edges_are_the_pairs_below_the_threshold():
    divergence = _random_divergence(np.random.default_rng(1), 8)
    expected = [
        (i, j, float(divergence[i, j]))
        for i in range(8)
        for j in range(i + 1, 8)
        if divergence[i, j] < 0.25
    ]
    assert expected and edges(divergence, 0.25) == expected


def test_group_divergence_with_one_head_each_is_the_divergence():
    divergence = _random_divergence(np.random.default_rng(2), 7)
    np.testing.assert_array_equal(group_divergence(divergence, 1), divergence)


def test_group_divergence_is_symmetric_and_bounded():
    for seed in range(20):
        divergence = _random_divergence(np.random.default_rng(seed), 12)
        between = group_divergence(divergence, 3)
        assert between.shape == (4, 4)
        assert np.array_equal(between, between.T) and (np.diag(between) == 0).all()
        for a in range(4):
            for b in range(4):
                if a != b:
                    tile = divergence[3 * a : 3 * a + 3, 3 * b : 3 * b + 3]
                    expected = max(tile.min(1).mean(), tile.min(0).mean())
                    assert between[a, b] == pytest.approx(expected, rel=1e-6)


def test_groups_with_equal_heads_in_another_order_do_not_diverge():
    pair = _random_divergence(np.random.default_rng(3), 3)
    order = [2, 0, 1]
    both = np.block([[pair, pair[:, order]], [pair[order], pair[order][:, order]]])
    assert group_divergence(both, 3).max() == 0.0
