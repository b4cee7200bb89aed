"""Where the heads of a block stand when its similarity graph is drawn: near = alike, whatever τ is.

Kamada and Kawai's layout as networkx has it. It needs scipy, which takes its time to import, so
the positions of the embedded model lie beside its measurement (``make assets``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import networkx as nx
import numpy as np

from pruning.artifacts.measurement import Measurement
from pruning.utils.digest import sha256_of
from pruning.utils.errors import SourceError
from pruning.utils.files import write_bytes

DECIMALS = 4
Positions = Mapping[str, np.ndarray]
"""Positions [heads, 2] by the :func:`content` of the divergence that they were made from."""


def head_layout(divergence: np.ndarray) -> np.ndarray:
    """Positions [heads, 2] in the unit square from ``divergence`` [heads, heads] (nats).

    The root of the Jensen-Shannon divergence is a metric: these are the wished distances. A second
    pass wishes for the distances of the first, but none smaller than a gap in which a node can be
    read and clicked. There is no randomness: a block always looks the same.
    """
    count = len(divergence)
    if count == 1:
        return np.full((1, 2), 0.5)
    gap = min(0.28, 1.1 / np.sqrt(count))
    distances = np.sqrt(np.maximum(divergence.astype(np.float64), 0.0))
    distances = np.maximum(distances, distances.T)
    # equal heads must not stand on one spot; where all are equal any distance will do
    distances = np.maximum(distances, gap / 2 * distances.max() or 1.0)
    np.fill_diagonal(distances, 0.0)
    points = _kamada_kawai(distances, _circle(distances))
    points = _kamada_kawai(np.maximum(_pair_distances(points), gap), points)
    return points.round(DECIMALS)


def _circle(distances: np.ndarray) -> np.ndarray:
    """A circle to start from, alike heads side by side: in the order of a walk along the shortest
    tree that joins all heads. From the order of their numbers two alike heads may not meet."""
    tree = nx.minimum_spanning_tree(nx.from_numpy_array(distances))
    order: nx.Graph[int] = nx.Graph()
    order.add_nodes_from(nx.dfs_preorder_nodes(tree, 0))
    circle = nx.circular_layout(order)
    return np.array([circle[head] for head in range(len(distances))])


def _kamada_kawai(distances: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Positions [heads, 2] for the wished ``distances`` [heads, heads], stretched to the unit
    square."""
    wished = distances / distances.max()
    np.fill_diagonal(wished, 0.0)
    placed = nx.kamada_kawai_layout(
        nx.empty_graph(len(wished)),
        dist={head: dict(enumerate(row)) for head, row in enumerate(wished.tolist())},
        pos=dict(enumerate(start)),
    )
    points = np.array([placed[head] for head in range(len(wished))])
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - low) / np.maximum(high - low, 1e-9)


def _pair_distances(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=2)


def content(divergence: np.ndarray) -> str:
    """Tells one ``divergence`` from another."""
    return sha256_of([np.ascontiguousarray(divergence, np.float32).tobytes()], 16)


def write_layouts(measurement: Measurement, path: Path) -> None:
    """Lay out every block of ``measurement`` and write the positions to ``path`` (JSON)."""
    layouts = {
        content(block.divergence): head_layout(block.divergence).tolist()
        for block in measurement.blocks
    }
    write_bytes(Path(path), json.dumps(layouts, separators=(",", ":")).encode())


def read_layouts(path: Path) -> Positions:
    """Read :func:`write_layouts`; raises SourceError."""
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
        return {key: np.array(points, np.float64) for key, points in stored.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise SourceError(f"The positions in {path} cannot be read: {error}.") from None
