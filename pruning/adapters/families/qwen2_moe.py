"""Qwen1.5-MoE and Qwen2-MoE: many small experts beside one that sees every token."""

from __future__ import annotations

from pruning.adapters.base import FAMILIES
from pruning.adapters.families.mixtral import MixtralAdapter


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


FAMILIES.add(
    "qwen2_moe",
    Qwen2MoeAdapter(),
    title="Qwen2-MoE",
    summary="Qwen1.5-MoE and Qwen2-MoE: channels of the routed experts; the shared one stays.",
    source="transformers Qwen2MoeForCausalLM",
    place=90,
)
