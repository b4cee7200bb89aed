"""Models by their placement: what the tests of it share."""

from __future__ import annotations

import torch

from pruning.evaluate.perplexity import batched_losses
from pruning.models.execution import offload
from tests.helpers import families


def losses(loaded, ids):
    """Loss of every predicted token."""
    return torch.cat(list(batched_losses(loaded.model, ids)))


def values(loaded):
    """What every tensor of a model holds, by name."""
    blocks = loaded.adapter.blocks(loaded.model)
    state = loaded.model.state_dict(keep_vars=True)
    return {name: offload.value_of(blocks, tensor) for name, tensor in state.items()}


def same(one, other):
    """Both models hold the same numbers."""
    first, second = values(one), values(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def many_blocks(folder, count):
    """A folder with a Llama of ``count`` small blocks."""
    model = families.llama_grouped(num_hidden_layers=count)
    families.randomise(model, 1)
    model.save_pretrained(folder)
    return folder
