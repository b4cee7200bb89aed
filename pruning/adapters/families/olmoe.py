"""OLMoE: a mixture of experts in every block, one norm over all query heads and all key heads."""

from __future__ import annotations

from types import MappingProxyType

from pruning.adapters.base import FAMILIES
from pruning.adapters.families.mixtral import MixtralAdapter


class OlmoeAdapter(MixtralAdapter):
    """The norm over all heads divides by their common root mean square, as in OLMo 2."""

    model_types = ("olmoe",)
    fixed = MappingProxyType(
        {
            "attention": "OLMoE normalises the queries and keys of all heads together, so taking "
            "one head out would change how the others attend."
        }
    )


FAMILIES.add(
    "olmoe",
    OlmoeAdapter(),
    title="OLMoE",
    summary="OLMoE: channels of every expert only; its heads share one norm and stay.",
    source="transformers OlmoeForCausalLM",
    place=110,
)
