"""What a model will need: the arithmetic, the choice of a placement, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest

import pruning
from pruning.models.loading import memory_estimate as estimates
from pruning.models.loading.memory_estimate import estimate
from pruning.models.loading.sizes import EVALUATION, Sizes, Task
from pruning.utils.errors import OutOfMemory, UsageError

GIB = 2**30


def _big(device="cpu", free=24.0, free_cpu=None, cards=1, **task):
    """A Llama of 7B in float32 with so much free."""
    sizes = Sizes(
        parameters=6_738_415_616,
        block_parameters=32 * 202_383_360,
        largest_block=202_383_360,
        hidden=4096,
        inner=11008,
        active=11008,
        experts=1,
        heads=32,
        vocabulary=32000,
        streams=3,
        blocks=32,
    )
    found = estimates.MemoryEstimate(
        sizes,
        Task(**task),
        "float32",
        device,
        int(free * GIB),
        int((free if free_cpu is None else free_cpu) * GIB),
        cards,
    )
    return found


def test_the_arithmetic_adds_up():
    found = _big(free=200)
    on_device, on_cpu = found.needs("whole")
    assert on_cpu == 0
    assert on_device == sum(
        (found.weight_bytes, found.pruned_bytes, found.working_bytes, found.activation_bytes)
    )
    assert found.activation_bytes == 3 * 32 * 128 * 4096 * 4
    assert found.placement() == "whole"
    # on the device one block at a time, so the number of blocks makes no difference
    short = replace(
        found.sizes,
        parameters=found.parameters - 16 * 202_383_360,
        block_parameters=16 * 202_383_360,
    )
    fewer = replace(found, sizes=short, device="cuda")
    assert fewer.needs("disk")[0] == replace(found, device="cuda").needs("disk")[0]
    assert fewer.needs("memory")[1] < replace(found, device="cuda").needs("memory")[1]


def test_gradients_of_the_probed_half_are_counted_and_bounded():
    few, many = (_big(samples=n, probed=n, prunes=False) for n in (8, 4096))
    stream = 128 * 4096 * 4
    by_window = 128 * 4096 * (33 * 4 + 2 * 2 * 32)
    assert few.activation_bytes == 8 * stream + 4 * by_window
    assert 0 <= 3 * GIB - (many.activation_bytes - 4096 * stream) < by_window
    half = replace(_big(samples=320, seq_len=32, probed=32, prunes=False), dtype="bfloat16")
    by_copy = 32 * 4096 * (33 * 2 + 2 * 2 * 32)
    # 16 of the texts, and as many of their copies
    assert half.activation_bytes == 320 * 32 * 4096 * 2 + 32 * by_copy
    # a prune holds more streams, but no gradients any more
    assert _big(samples=4096, probed=4096).activation_bytes == 3 * 4096 * stream


def test_the_quickest_placement_that_fits():
    assert _big("cuda", free=140, free_cpu=100).placement() == "whole"
    assert _big("cuda", free=40, free_cpu=100).placement() == "memory"
    assert _big("cuda", free=40, free_cpu=30).placement() == "disk"
    assert _big("cuda", free=40, free_cpu=100, cards=4).placement() == "spread"
    assert _big("cuda", free=1, free_cpu=100).placement() is None
    assert _big("cpu", free=40).placement() == "disk"


def test_a_refusal_says_what_would_fit():
    whole = _big("cpu", free=40).sentence()
    assert "6,738 M parameters in float32" in whole and f"{4 * 6_738_415_616 / 1e9:.2f} GB" in whole
    assert f"{(40 << 30) / 1e9:.2f} GB free" in whole and "GiB" not in whole
    assert "placement disk" in whole and "bfloat16" in whole
    fewer = _big("cpu", free=24, samples=2048).sentence("disk")
    assert "That does not fit; this would: bfloat16" in fewer
    half = replace(_big("cpu", free=8, samples=1024), dtype="bfloat16").sentence()
    assert "samples" in half.split("this would")[1]
    assert "smaller model" in _big("cpu", free=1).sentence()
    for said in (whole, fewer, half):
        assert "\n" not in said


def test_loading_follows_the_estimate(model_folder, monkeypatch):
    needs = estimate(str(model_folder), device="cpu")
    load = pruning.load

    def free(amount):
        monkeypatch.setattr(estimates, "free_bytes", lambda _device: amount)

    free(needs.needs("whole")[0])
    assert load(str(model_folder), device="cpu").placement == "whole"
    free(needs.needs("disk")[0])
    assert load(str(model_folder), device="cpu").placement == "disk"
    with pytest.raises(OutOfMemory, match=r"does not fit; this would: .*placement disk"):
        load(str(model_folder), device="cpu", placement="whole", task=Task())
    # who does not say may want to evaluate only
    free(replace(needs, task=EVALUATION).needs("disk")[0])
    assert load(str(model_folder), device="cpu").placement == "disk"
    with pytest.raises(OutOfMemory, match="in all .* of cpu, which has"):
        load(str(model_folder), device="cpu", task=Task())
    free(1000)
    with pytest.raises(OutOfMemory, match="does not fit"):
        load(str(model_folder), device="cpu")
    with pytest.raises(UsageError, match="placement 'moon'.*auto, whole"):
        load(str(model_folder), device="cpu", placement="moon")
