"""Head similarity (method section 2): heads whose attention patterns say the same thing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Candidate:
    """``unit`` may go because it is like ``partner``: their divergence (nats) is below τ."""

    unit: int
    partner: int
    divergence: float


def candidates(
    divergence: np.ndarray, threshold: float, keep: Collection[int] = ()
) -> list[Candidate]:
    """Algorithm 2 on ``divergence`` [units, units] (nats) with τ = ``threshold``, as written.

    Walks rows i, then columns j: if they differ, ``D_ij < τ`` and neither is a candidate yet,
    i becomes one. A unit that served as partner may still become a candidate itself later.
    Units of ``keep`` never do.
    """
    chosen: dict[int, Candidate] = {}
    below = divergence < threshold
    np.fill_diagonal(below, False)
    below[sorted(keep)] = False
    for i, j in zip(*np.nonzero(below), strict=True):  # row-major, as the paper walks
        i, j = int(i), int(j)
        if i not in chosen and j not in chosen:
            chosen[i] = Candidate(i, j, float(divergence[i, j]))
    return list(chosen.values())


def weaker_candidates(
    divergence: np.ndarray, threshold: float, importance: np.ndarray, keep: Collection[int] = ()
) -> list[Candidate]:
    """Ours: of each pair below τ, most alike first, the one of less ``importance`` [units] goes.

    A unit for whose sake another went always stays, so every candidate keeps its partner, and
    so do units of ``keep``.
    """
    chosen: dict[int, Candidate] = {}
    needed: set[int] = set(keep)
    for i, j, value in sorted(edges(divergence, threshold), key=lambda edge: edge[2]):
        if i in chosen or j in chosen or (i in needed and j in needed):
            continue
        unit, partner = (i, j) if importance[i] <= importance[j] else (j, i)
        if unit in needed:
            unit, partner = partner, unit
        chosen[unit] = Candidate(unit, partner, value)
        needed.add(partner)
    return list(chosen.values())


def edges(divergence: np.ndarray, threshold: float) -> list[tuple[int, int, float]]:
    """Edges ``(i, j, D_ij)`` with i < j of the similarity graph at τ."""
    rows, columns = np.nonzero(divergence < threshold)
    upper = rows < columns
    rows, columns = rows[upper], columns[upper]
    values = divergence[rows, columns].tolist()
    return list(zip(rows.tolist(), columns.tolist(), values, strict=True))


def group_divergence(divergence: np.ndarray, per_group: int) -> np.ndarray:
    """Divergence between key/value groups [groups, groups], from that between query heads.

    Each head is matched with the most alike head of the other group; the mean is taken, and
    the larger of the two directions, so it is symmetric and zero for groups with equal heads.
    Ours: the paper treats models without grouped queries.
    """
    groups = divergence.shape[0] // per_group
    tiles = divergence.reshape(groups, per_group, groups, per_group)
    one_way = tiles.min(axis=3).mean(axis=1)
    result = np.maximum(one_way, one_way.T)
    np.fill_diagonal(result, 0.0)
    return result
