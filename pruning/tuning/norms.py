"""Gains of the norms alone: 0.03% of the weights."""

from pruning.tuning.base import TUNINGS, Tuning


def prepare(model, adapter, rule, seed):
    """The gain of every norm of ``model``. Their sizes differ a hundredfold from block to block,
    so that one learning rate for all would be too large for some and too small for others."""
    from pruning.tuning.training.trainable import leaves, norm_gains

    return leaves(model, norm_gains(model), relative=True)


def refused(model, adapter):
    """Why the gains of ``model`` cannot be trained."""
    from pruning.tuning.training.trainable import norm_gains

    return "" if norm_gains(model) else "its norms have no gains; choose lora or full"


TUNINGS.add(
    "norms",
    Tuning(prepare, learning_rate=3e-3, share=lambda rule: 0.001, refused=refused),
    title="Gains of the norms",
    summary="Only the gains of the norms are trained, toward the dense model's predictions.",
    source="Headroom; cf. BitFit, Ben Zaken et al., ACL 2022",
    cost="end to end",
    place=20,
)
