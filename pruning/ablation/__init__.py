"""What if: units of a loaded model switched off by masks, and what that changes."""

from pruning.ablation.leave_one_out import leave_one_out
from pruning.ablation.reading import Reading, read
from pruning.ablation.request import check_ablation, masks_for
from pruning.ablation.what_if import what_if

__all__ = ["Reading", "check_ablation", "leave_one_out", "masks_for", "read", "what_if"]
