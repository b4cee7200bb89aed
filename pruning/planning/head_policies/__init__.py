"""Head policies: which heads may go where several query heads share one key/value head."""

from pruning.planning.head_policies.base import (
    HEAD_POLICIES,
    HeadPolicy,
    HeadRequest,
    alternatives,
    policy_for,
)

__all__ = ["HEAD_POLICIES", "HeadPolicy", "HeadRequest", "alternatives", "policy_for"]
