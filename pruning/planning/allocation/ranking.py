"""Shares from one ranking of units over several modules, as FLAP does it.

Scores of channels are standardised inside each module, so that modules can be compared, and a head
has the mean of its channels: heads then lie closer together than FFN channels, and none goes before
the many channels that are far below their module's mean. Units are taken from the weakest on until
enough parameters are gone. Heads come in coarse shapes, so the channels are ranked once more for
what the real head counts leave to be removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm

import numpy as np

from pruning.artifacts.measurement import Measurement
from pruning.artifacts.recipe import Recipe
from pruning.artifacts.shapes import ModuleKind, ModuleShape
from pruning.criteria import channel_scores
from pruning.planning.allocation.base import BlockSparsity
from pruning.planning.allocation.budget import attention_after, channel_parameters, least_ffn
from pruning.planning.head_policies.base import policy_for
from pruning.planning.selection import dense_parameters


def standardised(
    measurement: Measurement, recipe: Recipe, index: int, kind: ModuleKind
) -> np.ndarray:
    """Scores of a module's units [units]: means over their channels, which have mean 0 and
    standard deviation 1 in the module (FLAP's released code, AL-AM)."""
    name = recipe.heads.score if kind == "attention" else recipe.ffn.score
    statistics = measurement.blocks[index].module(kind).statistics
    shape = measurement.shape.blocks[index].module(kind)
    if shape.fixed:
        return np.zeros(1)  # the best unit of a module stays, so this offers nothing
    scores = channel_scores(name, statistics, shape, seed=recipe.seed, block=index)
    if shape.experts > 1:  # they are per routed token; what few tokens see matters less
        tokens = statistics["expert_tokens"].astype(np.float64)
        scores = scores * (tokens / max(tokens.mean(), 1.0)).repeat(shape.units_per_expert)
    spread = scores.std()
    scores = (scores - scores.mean()) / spread if spread > 0 else np.zeros_like(scores)
    return scores.reshape(shape.units, shape.unit_width).mean(axis=1)


def head_parameters(measurement: Measurement, recipe: Recipe, index: int) -> float:
    """Parameters that one head less of block ``index`` saves, about, under the recipe's policy."""
    shape = measurement.shape.blocks[index].attention
    return policy_for(recipe.heads.policy, shape).parameters_per_head(shape)


def weakest(scores: Sequence[np.ndarray], costs: Sequence[float], to_remove: float) -> list[int]:
    """How many units each module loses when ``to_remove`` parameters must go, weakest units of all
    modules first; the best unit of each module stays."""
    values = [np.delete(module, module.argmax()) for module in scores]
    owner = np.repeat(np.arange(len(values)), [len(v) for v in values])
    order = np.argsort(np.concatenate(values), kind="stable")
    spent = np.cumsum(np.asarray(costs, dtype=np.float64)[owner[order]])
    taken = int(np.searchsorted(spent, max(to_remove, 0.0) - 1e-6)) + 1 if to_remove > 0 else 0
    return np.bincount(owner[order[:taken]], minlength=len(values)).tolist()


def uniform_ffn_sparsity(
    measurement: Measurement, recipe: Recipe, blocks: range, heads: Sequence[float], kept: int
) -> list[float]:
    """The same share of channels for all blocks, such that ``kept`` parameters stay in all."""
    to_remove = ffn_parameters_to_remove(measurement, recipe, blocks, heads, kept)
    shapes = [measurement.shape.blocks[index].ffn for index in blocks]
    sizes = [shape.units * channel_parameters(shape) for shape in shapes if not shape.fixed] or [1]
    sparsity = min(max(to_remove / sum(sizes), 0.0), 1.0 - 1e-9)
    counts = [int(np.ceil(sparsity * shape.units - 1e-9)) for shape in shapes]
    multiple = recipe.ffn.multiple
    return [channel_sparsity(s, count, multiple) for s, count in zip(shapes, counts, strict=True)]


def ffn_parameters_to_remove(
    measurement: Measurement, recipe: Recipe, blocks: range, heads: Sequence[float], kept: int
) -> float:
    """Parameters that the channels of ``blocks`` must give up, after the heads have."""
    total = sum(dense_parameters(measurement.shape.blocks[index].ffn) for index in blocks)
    for index, sparsity in zip(blocks, heads, strict=True):
        total += attention_after(measurement, recipe, index, sparsity)
    return total - kept


def ranked_ffn(
    measurement: Measurement, recipe: Recipe, blocks: range, heads: Sequence[float], kept: int
) -> list[BlockSparsity]:
    """``heads`` as given (more where the channels alone are not enough) and, for the rest, one
    ranking of the channels of all ``blocks``."""
    heads = enough_heads(measurement, recipe, blocks, heads, kept)
    multiple = recipe.ffn.multiple
    counts = weakest(
        [standardised(measurement, recipe, index, "ffn") for index in blocks],
        [channel_parameters(measurement.shape.blocks[index].ffn) for index in blocks],
        ffn_parameters_to_remove(measurement, recipe, blocks, heads, kept),
    )
    return [
        BlockSparsity(
            sparsity, channel_sparsity(measurement.shape.blocks[index].ffn, count, multiple)
        )
        for index, sparsity, count in zip(blocks, heads, counts, strict=True)
    ]


def enough_heads(
    measurement: Measurement, recipe: Recipe, blocks: range, heads: Sequence[float], kept: int
) -> list[float]:
    """``heads``, the shares that the blocks lose, raised step by step in all of them until their
    channels can give up the rest of what exceeds ``kept`` parameters."""
    shapes = [measurement.shape.blocks[index] for index in blocks]
    least = sum(least_ffn(shape.ffn, recipe.ffn.multiple) for shape in shapes)

    def left(shares: Sequence[float]) -> int:
        pairs = zip(blocks, shares, strict=True)
        return least + sum(attention_after(measurement, recipe, *pair) for pair in pairs)

    def raised(share: float, shape: ModuleShape) -> float:
        step = policy_for(recipe.heads.policy, shape).step(shape)
        return max(share, min(share * shape.units + step, shape.units - step) / shape.units)

    heads = list(heads)
    while left(heads) > kept:
        more = [raised(share, shape.attention) for share, shape in zip(heads, shapes, strict=True)]
        if more == heads:
            break
        heads = more
    return heads


def channel_sparsity(shape: ModuleShape, count: int, multiple: int = 1) -> float:
    """The share that takes at least ``count`` channels out, as many of each expert, such that the
    width that stays is a multiple of ``multiple``, where anything goes."""
    size, step = shape.units_per_expert, lcm(multiple, shape.step)
    # rounded up: a budget is a limit
    keep = size - -(-count // shape.experts)
    return 1.0 - min(max(keep // step, 1) * step, size) / size if count > 0 else 0.0


def ranked_heads(
    measurement: Measurement, recipe: Recipe, blocks: range, to_remove: float, channels: bool
) -> list[float]:
    """Share of heads that each block loses when ``to_remove`` parameters go from the weakest heads
    of all ``blocks``, or from the weakest heads and ``channels``; the nearest share that grouped
    queries allow, for what is rounded away comes from the channels."""
    shapes = [measurement.shape.blocks[index] for index in blocks]
    scores = [standardised(measurement, recipe, index, "attention") for index in blocks]
    costs = [head_parameters(measurement, recipe, index) for index in blocks]
    if channels:
        scores += [standardised(measurement, recipe, index, "ffn") for index in blocks]
        costs += [channel_parameters(shape.ffn) for shape in shapes]
    counts = weakest(scores, costs, to_remove)[: len(blocks)]
    return [
        nearest_heads(count, shape.attention, recipe.heads.policy) / shape.attention.units
        for count, shape in zip(counts, shapes, strict=True)
    ]


def nearest_heads(count: int, shape: ModuleShape, policy: str) -> int:
    """The number of heads next to ``count`` that can go under ``policy``, some heads staying."""
    step = policy_for(policy, shape).step(shape)
    return min(step * ((count + step // 2) // step), shape.units - step)
