"""Shared by families that normalise what a module adds to the residual stream."""

from abc import abstractmethod
from dataclasses import replace

from pruning.adapters.families.llama import LlamaAdapter


class PostNormAdapter(LlamaAdapter):
    """The Llama layout; each module's output passes a norm before it joins the stream.

    ``norm(W_O x)`` is not linear in ``W_O``, so both modules say ``normed``: recovery fits the
    output projection to the dense module's output before the norm.
    """

    @abstractmethod
    def attention_input(self, block, hidden):
        """What the query, key and value projections read, [n, s, d]."""

    @abstractmethod
    def ffn_input(self, block, hidden):
        """What the up and gate projections read, [n, s, d]."""

    def attention(self, block):
        return replace(super().attention(block), normed=True)

    def ffn(self, block):
        return replace(super().ffn(block), normed=True)

    def run_attention(self, block, hidden, context):
        output, probabilities = block.self_attn(
            hidden_states=self.attention_input(block, hidden), **context
        )
        return block.post_attention_layernorm(output), probabilities

    def run_ffn(self, block, hidden):
        return block.post_feedforward_layernorm(block.mlp(self.ffn_input(block, hidden)))
