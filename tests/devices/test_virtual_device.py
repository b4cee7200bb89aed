"""The pretended accelerator refuses what a real one refuses, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.helpers.virtual_device import VirtualTensor, WrongDevice, virtual_device


@pytest.fixture(params=["cuda", "mps"])
def kind(request):
    with virtual_device(request.param, cards=2):
        yield request.param


def pair(kind):
    """A matrix on the device and one on the CPU."""
    return torch.ones(3, 4).to(kind), torch.ones(3, 4)


ILLEGAL = {
    "a sum of two devices": lambda there, here: there + here,
    "a product": lambda there, here: there @ here.T,
    "joined": lambda there, here: torch.cat([there, here]),
    "a layer on the CPU": lambda there, here: nn.functional.linear(there, here),
    "in place": lambda there, here: here.add_(there),
    "indices on the device for the CPU": lambda there, here: here[there[0].long() * 0],
    "a mask's values from the CPU": lambda there, here: there.__setitem__(there > 0, here[:1]),
    "index_select with indices on the CPU": lambda there, here: there.index_select(
        0, torch.tensor([0])
    ),
    "a table on the CPU": lambda there, here: nn.functional.embedding(there.long()[0], here),
    "where": lambda there, here: torch.where(there > 0, there, here),
    "numpy": lambda there, here: there.numpy(),
    "a loss against targets on the CPU": lambda there, here: nn.functional.cross_entropy(
        there, here[:, 0].long()
    ),
}
LEGAL = {
    "a number on the CPU": lambda there, here: there * torch.tensor(2.0),
    "indices on the CPU": lambda there, here: there[torch.tensor([0, 2])],
    "copied in": lambda there, here: there.copy_(here),
    "a slice set from the CPU": lambda there, here: there.__setitem__(slice(0, 1), here[:1]),
    "brought here": lambda there, here: there.cpu() + here,
    "made there": lambda there, here: torch.zeros(3, 4, device=there.device) + there,
    "made like it": lambda there, here: torch.empty_like(there) + there.new_zeros(4),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_two_devices_do_not_mix(kind, name):
    with pytest.raises(WrongDevice):
        ILLEGAL[name](*pair(kind))


@pytest.mark.parametrize("name", LEGAL)
def test_what_a_card_allows_passes(kind, name):
    LEGAL[name](*pair(kind))


def test_mps_has_no_float64():
    with virtual_device("mps"):
        for make in (
            lambda: torch.ones(2, device="mps").double(),
            lambda: torch.ones(2, device="mps").sum(dtype=torch.float64),
            lambda: torch.zeros(2, dtype=torch.float64, device="mps"),
            lambda: torch.zeros(2, dtype=torch.float64).to("mps"),
            lambda: torch.zeros(2, device="mps").to(torch.float64),
            lambda: torch.zeros(2, device="mps").to("cpu", torch.float64),
        ):
            with pytest.raises(WrongDevice, match="float64"):
                make()
        assert torch.zeros(2, dtype=torch.float64).to("mps", torch.float32).device.type == "mps"
        assert torch.zeros(2, device="mps").cpu().double().dtype == torch.float64
    with virtual_device("cuda"):
        assert torch.ones(2, device="cuda").double().device.type == "cuda"


def test_copies_are_copies(kind):
    here = torch.zeros(3)
    there = here.to(kind)
    there += 1
    assert isinstance(there, VirtualTensor) and not here.any()
    back = there.cpu()
    back += 1
    assert not isinstance(back, VirtualTensor) and there.cpu().tolist() == [1.0] * 3


def test_gradients_are_on_the_device(kind):
    x = torch.ones(3, device=kind, requires_grad=True)
    (gradient,) = torch.autograd.grad((x * x).sum(), x)
    assert gradient.device.type == kind and gradient.cpu().tolist() == [2.0] * 3


def test_modules_move_with_their_ties(kind):
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    model.to(kind)
    assert model[0].weight is model[1].weight and isinstance(model[0].weight, nn.Parameter)
    assert model(torch.ones(1, 3, device=kind)).device.type == kind


def test_cards_are_told_apart():
    with virtual_device("cuda", cards=2):
        one, other = torch.ones(2, device="cuda:0"), torch.ones(2, device="cuda:1")
        with pytest.raises(WrongDevice):
            one + other
        assert (one + other.to("cuda:0")).device == torch.device("cuda", 0)


def test_waits_are_counted_by_line_of_the_engine():
    from pruning.measure.js_divergence import DivergenceSum

    with virtual_device("cuda") as waits:
        torch.ones(2, device="cuda").sum().item()  # not the engine's
        assert not waits
        total = DivergenceSum(2)
        total.add(torch.full((1, 2, 3, 3), 1 / 3, device="cuda"))
        total.result()
        assert waits and all(line.startswith("measure/js_divergence.py:") for line in waits)
