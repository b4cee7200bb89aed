"""All weights of the blocks."""

from pruning.tuning.base import TUNINGS, Tuning


def prepare(model, adapter, rule, seed):
    """Every parameter of the blocks and every gain; the embeddings stay the dense model's."""
    from pruning.tuning.training.trainable import block_weights, leaves, norm_gains

    return leaves(model, dict.fromkeys([*block_weights(model, adapter), *norm_gains(model)]))


TUNINGS.add(
    "full",
    Tuning(prepare, learning_rate=1e-4, share=lambda rule: 1.0),
    title="All weights of the blocks",
    summary="Every weight of the blocks is trained; takes four times their memory.",
    source="fine-tuning by distillation, Hinton et al., 2015",
    cost="end to end",
    place=40,
)
