"""OLMo 2: no norms before the modules, one norm over all query heads and over all key heads."""

from types import MappingProxyType

from pruning.adapters.base import FAMILIES
from pruning.adapters.families.post_norm import PostNormAdapter


class Olmo2Adapter(PostNormAdapter):
    """The norm over all heads divides by their common root mean square: without one head the
    others would attend differently, so no head can go. The FFN is pruned as usual."""

    model_types = ("olmo2",)
    fixed = MappingProxyType(
        {
            "attention": "OLMo 2 normalises the queries and keys of all heads together, so taking "
            "one head out would change how the others attend."
        }
    )

    def attention_input(self, block, hidden):
        return hidden

    def ffn_input(self, block, hidden):
        return hidden


FAMILIES.add(
    "olmo2",
    Olmo2Adapter(),
    title="OLMo 2",
    summary="OLMo 2: FFN channels only; its heads share one norm and stay.",
    source="transformers Olmo2ForCausalLM",
    place=70,
)
