"""Where the heads of one block stand in the similarity graph: near = alike, whatever τ is."""

from __future__ import annotations

import numpy as np

STEPS = 150
PUSHES = 200


def node_positions(divergence: np.ndarray) -> np.ndarray:
    """Positions [heads, 2] in the unit square from ``divergence`` [heads, heads] (nats).

    The root of the Jensen-Shannon divergence is a metric, so classical scaling of it gives the
    start, stress majorisation improves it, and a last pass keeps nodes from overlapping. There
    is no randomness: a block always looks the same.
    """
    count = divergence.shape[0]
    if count == 1:
        return np.array([[0.5, 0.5]])
    distance = np.sqrt(np.maximum(divergence.astype(np.float64), 0.0))
    distance = (distance + distance.T) / 2
    points = _majorise(_classical_scaling(distance), distance)
    return _push_apart(_to_unit_square(points), gap=min(0.22, 0.85 / np.sqrt(count)))


def _classical_scaling(distance: np.ndarray) -> np.ndarray:
    count = len(distance)
    centre = np.eye(count) - 1.0 / count
    values, vectors = np.linalg.eigh(-0.5 * centre @ distance**2 @ centre)
    vectors = vectors[:, -2:][:, ::-1]
    # an eigenvector's sign is arbitrary: fix it
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), range(vectors.shape[1])])
    points = vectors * signs * np.sqrt(np.maximum(values[-2:][::-1], 0.0))
    # a tiny circle separates heads that coincide
    angle = 2 * np.pi * np.arange(count) / count
    return points + 1e-3 * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _majorise(points: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """SMACOF with equal weights: each step lowers the squared error of all distances."""
    for _ in range(STEPS):
        now = _pair_distances(points)
        ratio = np.divide(distance, now, out=np.zeros_like(now), where=now > 1e-12)
        pull = -ratio
        np.fill_diagonal(pull, ratio.sum(axis=1))
        points = pull @ points / len(points)
    return points


def _push_apart(points: np.ndarray, gap: float) -> np.ndarray:
    """Move pairs that are nearer than ``gap`` away from each other, inside the unit square."""
    for _ in range(PUSHES):
        offsets = points[:, None] - points[None]
        now = _pair_distances(points)
        np.fill_diagonal(now, np.inf)
        short = np.clip(gap - now, 0.0, None)
        if short.max() < 1e-3 * gap:
            break
        step = short / np.maximum(now, 1e-9) / 2
        points = points + 0.5 * (offsets * step[..., None]).sum(axis=1)
        points = _to_unit_square(points)
    return points


def _pair_distances(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=2)


def _to_unit_square(points: np.ndarray) -> np.ndarray:
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - low) / np.maximum(high - low, 1e-9)
