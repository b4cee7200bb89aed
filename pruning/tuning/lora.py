"""Low-rank adapters in every layer of the blocks, merged into the weights at the end."""

from pruning.tuning.base import TUNINGS, Tuning


def prepare(model, adapter, rule, seed):
    """PEFT's adapters of the recipe's rank."""
    from pruning.tuning.training.low_rank import low_rank

    return low_rank(model, adapter, rule.rank, seed)


def refused(model, adapter):
    """Why ``model`` cannot have adapters."""
    if any(adapter.ffn(block).mixture for block in adapter.blocks(model)):
        return "layers of a mixture of experts have no place for adapters; choose norms or full"
    return ""


TUNINGS.add(
    "lora",
    Tuning(
        prepare,
        learning_rate=1e-3,
        share=lambda rule: min(1.0, 0.005 * rule.rank),
        refused=refused,
        packages=("peft",),
        parameters=("tune.rank",),
    ),
    title="LoRA",
    summary="Low-rank adapters beside every layer of the blocks are trained, then merged.",
    source="Hu et al., ICLR 2022, through PEFT",
    cost="end to end",
    place=30,
)
