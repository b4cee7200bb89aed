"""OPT: learned positions, ReLU, biases; norms before the modules, in OPT-350M after them."""

from pruning.adapters.base import FAMILIES, ModelAdapter, PrunableModule


class OPTAdapter(ModelAdapter):
    """With ``do_layer_norm_before=False`` the stream itself is normalised after each module:
    what the module then adds is the difference, which is not linear in the output
    projection (``normed``)."""

    model_types = ("opt",)

    def backbone(self, model):
        return model.model.decoder

    def attention(self, block):
        layer = block.self_attn
        return PrunableModule.of_heads(
            layer.q_proj,
            layer.k_proj,
            layer.v_proj,
            layer.out_proj,
            layer.head_dim,
            normed=not block.do_layer_norm_before,
        )

    def ffn(self, block):
        return PrunableModule.of_ffn(block.fc1, block.fc2, normed=not block.do_layer_norm_before)

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


FAMILIES.add(
    "opt",
    OPTAdapter(),
    title="OPT",
    summary="OPT of every size: learned positions, ReLU, biases everywhere.",
    source="transformers OPTForCausalLM",
    place=180,
)
