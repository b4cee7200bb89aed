"""What a model really holds and multiplies, and how far its experts are from the dense ones."""

from __future__ import annotations

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pruning.adapters.base import PrunableModule
from pruning.models.execution.blockwise import attention_implementation
from tests.helpers import families


def counted_flops(model: nn.Module, tokens: int) -> int:
    """FLOPs of the products that PyTorch carries out for one window of so many tokens, the angles
    of positions apart. Plain kernels, for those of attention and experts hide what they multiply.
    """
    experts = getattr(model.config, "_experts_implementation", None)
    model.config._experts_implementation = "eager"
    try:
        with attention_implementation(model, "eager"), FlopCounterMode(display=False) as counter:
            families.logits(model, families.token_ids(1, tokens))
    finally:
        model.config._experts_implementation = experts
    angles = (sum(n.values()) for k, n in counter.flop_counts.items() if k.endswith("rotary_emb"))
    return counter.get_total_flops() - sum(angles)


def check_counts(loaded, footprint):
    """Count parameters and bytes of the live tensors, and the products of a forward pass."""
    model = loaded.model
    assert footprint.parameters == sum(p.numel() for p in model.parameters())
    blocks = loaded.adapter.blocks(model)
    assert footprint.block_parameters == sum(p.numel() for p in blocks.parameters())
    assert footprint.bytes == sum(p.numel() * p.element_size() for p in model.parameters())
    flops = counted_flops(model, footprint.context)
    assert footprint.flops_per_token * footprint.context == flops


def error_of_experts(
    dense: PrunableModule, cut: PrunableModule, removed, hidden, chosen, shares
) -> float:
    """Squared error of the experts of ``cut``, each at the tokens that are routed to it and
    weighed with its share, relative to their dense outputs; nothing was cut before them."""
    error = energy = 0.0
    stored = [[p.double() for p in m.mixture.module.parameters()] for m in (dense, cut)]
    size = dense.units // dense.experts
    for expert in range(dense.experts):
        kept = [c for c in range(size) if expert * size + c not in removed]
        for token, place in (chosen == expert).nonzero().tolist():
            x, share = hidden[token].double(), shares[token, place].double()
            (gate_up, down), (_, fitted) = ([p[expert] for p in side] for side in stored)
            gate, up = (gate_up @ x).chunk(2)
            inner = dense.mixture.module.act_fn(gate) * up
            error += (share * (fitted @ inner[kept] - down @ inner)).square().sum().item()
            energy += (share * (down @ inner)).square().sum().item()
    return error / energy
