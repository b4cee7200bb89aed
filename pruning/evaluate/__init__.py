"""Perplexity, generation, speed and size of a model, dense or pruned."""

from pruning.artifacts.comparison import Passage, Perplexity, Speed, TokenLosses
from pruning.evaluate.comparison import compare, continuations, speeds
from pruning.evaluate.generation import generate
from pruning.evaluate.perplexity import perplexity
from pruning.evaluate.speed import tokens_per_second
from pruning.evaluate.token_losses import token_losses

__all__ = [
    "Passage",
    "Perplexity",
    "Speed",
    "TokenLosses",
    "compare",
    "continuations",
    "generate",
    "perplexity",
    "speeds",
    "token_losses",
    "tokens_per_second",
]
