"""Measurements without a model, so that plans can be tested in microseconds."""

from __future__ import annotations

import numpy as np

from pruning.artifacts.measurement import (
    CURVE_POINTS,
    ActivationSummary,
    BlockMeasurement,
    Measurement,
    ModuleMeasurement,
)
from pruning.artifacts.shapes import BlockShape, ModelShape, ModuleShape
from pruning.criteria import unit_scores

WIDTH, HIDDEN = 4, 24


def random_divergence(heads: int, seed: int = 0) -> np.ndarray:
    upper = np.triu(np.random.default_rng(seed).uniform(0.02, 0.5, (heads, heads)), 1)
    return upper + upper.T


def shape(blocks: int = 3, heads: int = 6, groups: int = 2, channels: int = 37) -> ModelShape:
    attention = ModuleShape(
        "attention",
        heads,
        groups,
        WIDTH,
        2 * WIDTH * HIDDEN,
        0,
        2 * WIDTH * HIDDEN,
        0,
        0,
        ungroups=heads > groups,
    )
    ffn = ModuleShape("ffn", channels, 0, 1, 3 * HIDDEN, 0, 0, 0, 0)
    block = BlockShape(attention, ffn, 2 * HIDDEN)
    return ModelShape(
        "LlamaForCausalLM",
        "llama",
        HIDDEN,
        100,
        64,
        (block,) * blocks,
        2 * 100 * HIDDEN,
        100 * HIDDEN,
        "float32",
    )


def measurement(seed: int = 0, **sizes: int) -> Measurement:
    """Random positive statistics and divergences."""
    random, made = np.random.default_rng(seed), shape(**sizes)
    return Measurement(
        "synthetic",
        None,
        "float32",
        "random",
        "abc",
        4,
        16,
        seed,
        0.0,
        made,
        tuple(_block(random, block) for block in made.blocks),
    )


def _block(random: np.random.Generator, block: BlockShape) -> BlockMeasurement:
    heads, groups = block.attention.units, block.attention.groups
    upper = np.triu(random.uniform(0.0, 0.69, (heads, heads)), 1)
    summary = ActivationSummary(0.0, 1.0, 1.0, 2.0, (0.5,), (1.0,), (0,), (2.0,))
    return BlockMeasurement(
        (upper + upper.T).astype(np.float32),
        _module(
            random, heads * WIDTH, query=heads * WIDTH, key=groups * WIDTH, value=groups * WIDTH
        ),
        _module(random, block.ffn.units, up=block.ffn.units, gate=block.ffn.units),
        dict.fromkeys(("residual", "attention", "ffn"), summary),
    )


def _module(random: np.random.Generator, inputs: int, **rows: int) -> ModuleMeasurement:
    fixed = ("input_mean", "input_second_moment", "input_variance", "level2_sq", "level2_abs")
    sizes = dict.fromkeys(fixed, inputs)
    for name, count in rows.items():
        sizes |= {f"{name}_{what}": count for what in ("second_moment", "sq", "abs")}
    return ModuleMeasurement(
        {name: random.uniform(0.1, 2.0, size).astype(np.float32) for name, size in sizes.items()}
    )


def predictable(seed: int = 0, **sizes: int) -> Measurement:
    """The same with expected losses: random falling curves."""
    made, random = measurement(seed, **sizes), np.random.default_rng(seed + 1)
    for size, block in zip(made.shape.blocks, made.blocks, strict=True):
        heads, groups = size.attention.units, size.attention.groups
        lengths = {
            "expected_loss": heads,
            "query_expected_loss": heads // groups,
            "kv_group_expected_loss": groups,
        }
        for module, curves in (
            (block.attention, lengths),
            (block.ffn, {"expected_loss": CURVE_POINTS}),
        ):
            scale = random.uniform(0.02, 0.5)
            for name, points in curves.items():
                steps = np.sort(random.uniform(0.0, 1.0, points))[::-1]
                curve = scale * np.concatenate([np.cumsum(steps[::-1])[::-1], [0.0]])
                module.statistics[name] = curve.astype(np.float32)
    return made


def head_scores(measured: Measurement, index: int) -> np.ndarray:
    """Second-moment scores of block ``index``'s heads [heads]."""
    shape = measured.shape.blocks[index].attention
    return unit_scores("second_moment", measured.blocks[index].attention.statistics, shape)
