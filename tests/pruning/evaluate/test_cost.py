"""Cost columns: torch's counter says what the arithmetic on the plan says."""

from __future__ import annotations

import json

import pytest
import torch

from pruning.artifacts.shapes import footprint, full_widths
from pruning.cli.main import main
from pruning.evaluate import measured_cost
from pruning.evaluate.cost import macs_per_token
from pruning.evaluate.speed import peak_memory_bytes, reset_process_peak
from pruning.pipeline import prune
from tests.helpers import families


@pytest.mark.parametrize("family", ["llama_grouped", "gpt2"])
def test_counted_macs_are_the_footprint_s(tiny_model, family):
    dense = tiny_model(family)
    shape = dense.adapter.model_shape(dense.model)
    run = prune(dense, families.recipe(ffn__ratio=0.4, heads__ratio=0.5, **families.PLAIN))
    for model, widths in ((dense.model, full_widths(shape)), (run.pruned.model, run.widths)):
        price = footprint(shape, widths, 16)
        assert 2 * macs_per_token(model, 16) == price.flops_per_token
    found = measured_cost(run.pruned.model, prompt_tokens=16, new_tokens=4, repeats=1)
    assert found.parameters == sum(p.numel() for p in run.pruned.model.parameters())
    assert found.prefill_ms > 0 and found.decode_ms > 0 and "16 tokens" in found.protocol()


def test_the_peak_begins_anew():
    def peak_of(megabytes):
        reset_process_peak()
        block = torch.ones(megabytes << 18)
        del block
        return peak_memory_bytes(torch.device("cpu"))

    large, small = peak_of(200), peak_of(1)
    assert large - small > 150 << 20


def test_the_command_prints_the_columns(model_folder, capsys):
    assert main(["evaluate", str(model_folder), "--device", "cpu", "--cost", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["cost"]
    assert {"parameters", "macs_per_token", "prefill_ms", "decode_ms", "peak_memory_bytes"} <= set(
        found
    )
    assert found["prompt_tokens"] == 24 and found["new_tokens"] == 24
