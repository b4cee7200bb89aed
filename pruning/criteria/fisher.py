"""Squared first-order effect of a unit, per token.

``E_t[(g_t · Σ_j B_:j h_tj)²]`` over a unit's channels j, with ``g_t`` the gradient of the loss by
the module's output at token t; each channel of a head holds an equal share. Measured in the
gradient pass.
"""

from pruning.criteria.base import CRITERIA, measured_with_gradients

CRITERIA.add(
    "fisher",
    measured_with_gradients("fisher_unit"),
    title="Fisher / squared Taylor per token",
    summary="Mean square, over tokens, of the first-order change of the loss when the unit falls "
    "silent.",
    source="Theis et al. 2018; Molchanov et al., CVPR 2019",
    cost="reads gradients",
    place=60,
)
