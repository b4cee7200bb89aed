"""Gemma 2 and the text models of Gemma 3: norms before and after each module, windows by block."""

from pruning.adapters.base import FAMILIES
from pruning.adapters.families.post_norm import PostNormAdapter
from pruning.utils.errors import Unsupported


class Gemma2Adapter(PostNormAdapter):
    """Each block gets the mask of its own window from the model; heads have their own width."""

    model_types = ("gemma2",)
    kernel = "eager"  # others leave out the soft cap; older transformers choose one of them

    def check_config(self, config):
        if config.use_bidirectional_attention:
            raise Unsupported(
                "A Gemma whose attention is bidirectional cannot be pruned; use a causal one."
            )

    def attention_input(self, block, hidden):
        return block.input_layernorm(hidden)

    def ffn_input(self, block, hidden):
        return block.pre_feedforward_layernorm(hidden)


class Gemma3Adapter(Gemma2Adapter):
    """Each block gets the rotary angles of its own window as well as its mask."""

    model_types = ("gemma3_text",)
    kernel = None  # no soft cap: any will do


FAMILIES.add(
    "gemma2",
    Gemma2Adapter(),
    title="Gemma 2",
    summary="Gemma 2: grouped queries, gated FFN, norms before and after each module.",
    source="transformers Gemma2ForCausalLM",
    place=50,
)
FAMILIES.add(
    "gemma3",
    Gemma3Adapter(),
    title="Gemma 3 (text)",
    summary="Gemma 3 text models (270M, 1B): as Gemma 2, queries and keys normalised per head.",
    source="transformers Gemma3ForCausalLM",
    place=60,
)
