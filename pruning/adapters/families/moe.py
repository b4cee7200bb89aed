"""Mixtures of experts: attention of the Llama kind, and experts in some or all blocks."""

from types import MappingProxyType

from pruning.adapters.base import FAMILIES, PrunableModule
from pruning.adapters.families.llama import LlamaAdapter


class MixtralAdapter(LlamaAdapter):
    """``mlp`` is a router ``gate`` and fused ``experts``; shared by the other mixtures."""

    model_types = ("mixtral",)
    whole = (
        "The router stays whole. The experts of a block lose the same number of channels each "
        "and keep a multiple of 8, which their kernel needs; they have no place for a bias, so "
        "recovery adds none to them."
    )

    def ffn(self, block):
        if not hasattr(block.mlp, "experts"):  # a block without experts between those with
            return super().ffn(block)
        return PrunableModule.of_experts(block.mlp.experts, block.mlp.gate.top_k)

    def other_weights(self, block):
        return block.mlp.gate.weight.numel() if hasattr(block.mlp, "experts") else 0


class Qwen2MoeAdapter(MixtralAdapter):
    """Some blocks may have a plain FFN; the shared expert is a second FFN beside the experts."""

    model_types = ("qwen2_moe",)
    whole = (
        "The router and the shared expert stay whole. The other experts of a block lose the "
        "same number of channels each and keep a multiple of 8, which their kernel needs; they "
        "have no place for a bias, so recovery adds none to them."
    )

    def other_weights(self, block):
        if not hasattr(block.mlp, "experts"):
            return 0
        shared = (block.mlp.shared_expert, block.mlp.shared_expert_gate)
        return super().other_weights(block) + sum(p.numel() for m in shared for p in m.parameters())


class Qwen3MoeAdapter(MixtralAdapter):
    """As Mixtral; one norm of head width serves all heads, so no head depends on another."""

    model_types = ("qwen3_moe",)


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
    "mixtral",
    MixtralAdapter(),
    title="Mixtral",
    summary="Mixtral: grouped queries and a mixture of experts; channels of every expert.",
    source="transformers MixtralForCausalLM",
    place=80,
)
FAMILIES.add(
    "qwen2_moe",
    Qwen2MoeAdapter(),
    title="Qwen2-MoE",
    summary="Qwen1.5-MoE and Qwen2-MoE: channels of the routed experts; the shared one stays.",
    source="transformers Qwen2MoeForCausalLM",
    place=90,
)
FAMILIES.add(
    "qwen3_moe",
    Qwen3MoeAdapter(),
    title="Qwen3-MoE",
    summary="Qwen3 mixtures: heads, and channels of every expert.",
    source="transformers Qwen3MoeForCausalLM",
    place=100,
)
FAMILIES.add(
    "olmoe",
    OlmoeAdapter(),
    title="OLMoE",
    summary="OLMoE: channels of every expert only; its heads share one norm and stay.",
    source="transformers OlmoeForCausalLM",
    place=110,
)
