"""Second-moment importance (method section 3): as the paper gives it, with the true intermediate
of the module, and without any data."""

from __future__ import annotations

import numpy as np

from pruning.artifacts.shapes import ModuleShape
from pruning.criteria.base import CRITERIA, Criterion, Statistics, spread


def exact(statistics: Statistics, shape: ModuleShape, rng: np.random.Generator) -> np.ndarray:
    """``½ ‖B_:j‖² · E[h_j²]`` with ``h`` what the output projection reads, after activation and
    gate."""
    return _half_norm(statistics) * statistics["input_second_moment"]


def paper(statistics: Statistics, shape: ModuleShape, rng: np.random.Generator) -> np.ndarray:
    """``½ ‖B_:j‖² · E[(A_j x)²]``; for a gated FFN the product of its two modules' scores.

    For attention the second moment is that of what the output projection reads (the values mixed
    by the attention pattern), summed over a head's channels by the caller.
    """
    if shape.kind == "attention":
        return _half_norm(statistics) * statistics["input_second_moment"]
    return _over_branches(statistics, "second_moment")


def identity(statistics: Statistics, shape: ModuleShape, rng: np.random.Generator) -> np.ndarray:
    """``½ ‖B_:j‖² · ‖A_j‖²``, the second moment with Σ = I (inputs taken as white noise); for a
    gated FFN the product of its two modules' scores, for attention ``A`` is the value projection.
    """
    if shape.kind == "attention":
        return _half_norm(statistics) * spread(statistics["value_sq"], shape)
    return _over_branches(statistics, "sq")


def _over_branches(statistics: Statistics, what: str) -> np.ndarray:
    half_norm = _half_norm(statistics)
    importance = half_norm * statistics[f"up_{what}"]
    if f"gate_{what}" in statistics:
        importance = importance * half_norm * statistics[f"gate_{what}"]
    return importance


def _half_norm(statistics: Statistics) -> np.ndarray:
    return 0.5 * statistics["level2_sq"].astype(np.float64)


CRITERIA.add(
    "second_moment_exact",
    Criterion(exact),
    title="Second moment (exact)",
    summary="The same with the measured second moment of what the output projection reads, after "
    "activation and gate.",
    source="Headroom; exact form of Li, Dong, Lei, CPAL 2025, section 3",
    cost="closed form",
    place=10,
)
CRITERIA.add(
    "second_moment",
    Criterion(paper, in_proj=True),
    title="Second moment (paper)",
    summary="Size of what the unit adds to the output, from the second moments of its inputs; "
    "for a gated FFN the product over its two branches.",
    source="Li, Dong, Lei, CPAL 2025, section 3",
    cost="closed form",
    place=20,
)
CRITERIA.add(
    "identity",
    Criterion(identity),
    title="Second moment without data",
    summary="The paper's second moment with Σ = I: from the weights alone.",
    source="Li, Dong, Lei, CPAL 2025, section 3 (data-free)",
    cost="closed form",
    place=30,
)
