"""Perplexity, generation, speed and size of a model, dense or pruned."""

from pruning.evaluate.generation import generate
from pruning.evaluate.perplexity import Perplexity, perplexity
from pruning.evaluate.speed import Speed, tokens_per_second
from pruning.evaluate.token_losses import Passage, TokenLosses, token_losses

__all__ = [
    "Passage",
    "Perplexity",
    "Speed",
    "TokenLosses",
    "generate",
    "perplexity",
    "token_losses",
    "tokens_per_second",
]
