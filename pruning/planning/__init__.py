"""From a measurement and a recipe to a plan; numpy only, fast enough for a slider."""

from pruning.planning.planner import make_plan

__all__ = ["make_plan"]
