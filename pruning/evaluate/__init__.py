"""Perplexity, generation, speed and size of a model, dense or pruned."""

from pruning.evaluate.generation import generate
from pruning.evaluate.perplexity import Perplexity, perplexity
from pruning.evaluate.speed import Speed, tokens_per_second

__all__ = ["Perplexity", "Speed", "generate", "perplexity", "tokens_per_second"]
