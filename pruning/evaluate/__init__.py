"""Perplexity, zero-shot tasks, generation, speed and size of a model, dense or pruned."""

from pruning.evaluate.continuations import Continuations, compare_continuations
from pruning.evaluate.cost import Cost, measured_cost
from pruning.evaluate.generation import generate
from pruning.evaluate.perplexity import Perplexity, perplexity
from pruning.evaluate.speed import Speed, tokens_per_second
from pruning.evaluate.task_data import task_sources
from pruning.evaluate.token_losses import Passage, TokenLosses, token_losses
from pruning.evaluate.zero_shot import zero_shot

__all__ = [
    "Continuations",
    "Cost",
    "Passage",
    "Perplexity",
    "Speed",
    "TokenLosses",
    "compare_continuations",
    "generate",
    "measured_cost",
    "perplexity",
    "task_sources",
    "token_losses",
    "tokens_per_second",
    "zero_shot",
]
