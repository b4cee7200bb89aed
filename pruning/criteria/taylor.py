"""Taylor importance of a unit's weights: what the loss changes by when they go.

The three terms of LLM-Pruner are measured in the gradient pass, with ``w`` the weights of a unit
and ``g`` the gradients of the loss by them:

- ``taylor_vector``: ``Σ_v |Σ_k w_k g_k|`` over the unit's weight vectors v, each a row of an input
  projection or a column of the output projection; ``g`` is that of the mean loss (``vectorize``);
- ``taylor_element1``: ``Σ_k |w_k g_k|`` over all weights k, same ``g`` (``param_first``);
- ``taylor_element2``: ``Σ_k w_k² · mean over samples of g_k²``, ``g`` that of the mean loss of one
  sample (``param_second``).
"""

from pruning.criteria.base import CRITERIA, measured_with_gradients

CRITERIA.add(
    "taylor_element1",
    measured_with_gradients("taylor_element1"),
    title="Taylor, element 1 (LLM-Pruner)",
    summary="First-order change of the loss when the unit's weights go, summed over single "
    "weights.",
    source="Ma, Fang, Wang, NeurIPS 2023 (LLM-Pruner), Element¹",
    cost="reads gradients",
    place=70,
)
CRITERIA.add(
    "taylor_element2",
    measured_with_gradients("taylor_element2"),
    title="Taylor, element 2 (LLM-Pruner)",
    summary="Second-order change of the loss when the unit's weights go, with squared "
    "gradients as the Hessian.",
    source="Ma, Fang, Wang, NeurIPS 2023 (LLM-Pruner), Element²",
    cost="reads gradients",
    place=80,
)
CRITERIA.add(
    "taylor_vector",
    measured_with_gradients("taylor_vector"),
    title="Taylor, vector (LLM-Pruner)",
    summary="First-order change of the loss when the unit's rows and columns go, each taken whole.",
    source="Ma, Fang, Wang, NeurIPS 2023 (LLM-Pruner), Vector",
    cost="reads gradients",
    place=90,
)
