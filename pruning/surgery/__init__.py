"""From a plan to a pruned model: the two streams, one task per module, the cut."""
