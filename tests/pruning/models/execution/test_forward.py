"""A forward pass that is replaced for a while is what it was before."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pruning.models.execution.forward import replaced_forward, replaced_forwards
from pruning.models.execution.offload import device_of, is_offloaded, place_blocks


def test_the_replacement_ends_with_the_block_even_when_it_fails():
    layer, x = nn.Linear(3, 3), torch.ones(1, 3)
    expected = layer(x)
    with pytest.raises(ZeroDivisionError), replaced_forward(layer, lambda given: given):
        assert layer(x) is x
        with replaced_forward(layer, lambda given: given + 1):
            assert torch.equal(layer(x), x + 1)
        assert layer(x) is x
        raise ZeroDivisionError
    assert torch.equal(layer(x), expected) and "forward" not in layer.__dict__


def test_the_replacement_of_several_is_told_which_one_is_called():
    layers = [nn.Linear(3, 3), nn.Linear(3, 3)]
    with replaced_forwards(layers, lambda layer, _given: layers.index(layer)):
        assert [layer(None) for layer in layers] == [0, 1]


def test_placed_blocks_stay_what_they_were_and_copies_share_their_store():
    blocks = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))
    assert not is_offloaded(blocks[0])
    x, names = torch.ones(1, 3), list(blocks.state_dict())
    expected = [block(x) for block in blocks]
    cards = [torch.device("cpu"), torch.device("cpu", 0)]
    place_blocks(blocks, cards)
    copied = copy.deepcopy(blocks)
    for placed in (blocks, copied):
        assert all(isinstance(block, nn.Linear) and is_offloaded(block) for block in placed)
        assert [device_of(block) for block in placed] == cards
        assert list(placed.state_dict()) == names
        assert all(torch.equal(block(x), y) for block, y in zip(placed, expected, strict=True))
    assert copied[0].placement.store is blocks[1].placement.store
