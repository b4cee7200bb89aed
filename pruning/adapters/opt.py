"""OPT: learned positions, ReLU, biases; norms before the modules, in OPT-350M after them."""

from __future__ import annotations

from pruning.adapters.base import ADAPTERS, DepthTwo, ModelAdapter
from pruning.adapters.projection import Projection


class OPTAdapter(ModelAdapter):
    """With ``do_layer_norm_before=False`` the stream itself is normalised after each module:
    what the module then adds is the difference, which is not linear in level 2 (``normed``)."""

    model_types = ("opt",)

    def backbone(self, model):
        return model.model.decoder

    def blocks(self, model):
        return model.model.decoder.layers

    def attention(self, block):
        layer = block.self_attn
        heads = layer.q_proj.out_features // layer.head_dim
        return DepthTwo(
            kind="attention",
            level1={
                "query": Projection.whole(layer.q_proj),
                "key": Projection.whole(layer.k_proj),
                "value": Projection.whole(layer.v_proj),
            },
            level2=layer.out_proj,
            units=heads,
            groups=heads,
            unit_width=layer.head_dim,
            normed=not block.do_layer_norm_before,
        )

    def ffn(self, block):
        return DepthTwo(
            kind="ffn",
            level1={"up": Projection.whole(block.fc1)},
            level2=block.fc2,
            units=block.fc1.out_features,
            groups=0,
            unit_width=1,
            normed=not block.do_layer_norm_before,
        )

    def run_attention(self, block, hidden, context):
        norm = block.self_attn_layer_norm
        if block.do_layer_norm_before:
            return block.self_attn(hidden_states=norm(hidden), **context)
        added, probabilities = block.self_attn(hidden_states=hidden, **context)
        return norm(hidden + added) - hidden, probabilities

    def run_ffn(self, block, hidden):
        norm = block.final_layer_norm
        if block.do_layer_norm_before:
            return self._feed_forward(block, norm(hidden))
        return norm(hidden + self._feed_forward(block, hidden)) - hidden

    def _feed_forward(self, block, hidden):
        return block.fc2(block.activation_fn(block.fc1(hidden)))

    def set_widths(self, block, heads, groups):
        block.self_attn.num_heads = heads

    def outside_weights(self, model):
        decoder = self.backbone(model)
        between = (decoder.project_in, decoder.project_out)  # OPT-350M has narrower embeddings
        return super().outside_weights(model) + sum(
            layer.weight.numel() for layer in between if layer is not None
        )


ADAPTERS.add(
    "opt",
    OPTAdapter(),
    title="OPT",
    summary="OPT of every size: learned positions, ReLU, biases everywhere.",
    source="transformers OPTForCausalLM",
)
