"""Perplexity, zero-shot tasks, generation, speed and size of a model, dense or pruned."""

from pruning.artifacts.comparison import Passage, Perplexity, Speed, TokenLosses
from pruning.evaluate.comparison import compare, speeds
from pruning.evaluate.continuations import Continuations, compare_continuations
from pruning.evaluate.cost import Cost, latency, measured_cost
from pruning.evaluate.generation import generate
from pruning.evaluate.perplexity import perplexity
from pruning.evaluate.speed import tokens_per_second
from pruning.evaluate.task_data import task_sources
from pruning.evaluate.token_losses import read_with_both
from pruning.evaluate.zero_shot import zero_shot

__all__ = [
    "Continuations",
    "Cost",
    "Passage",
    "Perplexity",
    "Speed",
    "TokenLosses",
    "compare",
    "compare_continuations",
    "generate",
    "latency",
    "measured_cost",
    "perplexity",
    "read_with_both",
    "speeds",
    "task_sources",
    "tokens_per_second",
    "zero_shot",
]
