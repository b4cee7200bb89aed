"""The number format of the passes of recovery: who gets which, and that only passes are in it."""

from __future__ import annotations

import ast
from types import SimpleNamespace

import pytest
import torch

from pruning.measure.windows import recovery_windows
from pruning.models.execution.tap import run_tapped
from pruning.pipeline import prune
from pruning.utils import precision
from pruning.utils.precision import autocast_dtype_of, autocast_name
from tests.helpers import ROOT, families

CUT = {"heads__ratio": 0.34, "ffn__ratio": 0.4, "calibration__samples": 40}


def test_only_float32_weights_are_given_another_format(monkeypatch):
    def model(dtype, device="cpu"):
        return SimpleNamespace(dtype=dtype, device=torch.device(device))

    single, half = model(torch.float32), model(torch.float16)
    for units, wanted in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(precision, "_has_bfloat16_units", lambda _device, units=units: units)
        assert autocast_dtype_of("auto", single) is wanted
        assert autocast_name("auto", single) == ("bfloat16" if units else "float32")
        assert autocast_dtype_of("model", single) is None
        assert autocast_dtype_of("bfloat16", single) is torch.bfloat16
        assert autocast_dtype_of("bfloat16", half) is autocast_dtype_of("auto", half) is None
        assert autocast_name("auto", half) == "float16"


@pytest.mark.parametrize(
    ("found", "units"),
    [
        ({}, False),
        ({"avx512_f": True}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": 1}, True),
    ],
)
def test_processors_that_multiply_bfloat16_are_known(monkeypatch, found, units):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    model = SimpleNamespace(dtype=torch.float32, device=torch.device("cpu"))
    assert autocast_dtype_of("auto", model) is (torch.bfloat16 if units else None)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_fit_in_bfloat16_is_about_the_one_in_float32(tiny_model, family):
    """And it is not the same, or nothing was computed in bfloat16. Weights stay float32."""
    loaded = tiny_model(family)
    runs = {
        compute: prune(loaded, families.recipe(**CUT, recovery__compute=compute))
        for compute in ("model", "bfloat16")
    }
    errors = {
        compute: [(event.error_before, event.error_after) for event in run.events]
        for compute, run in runs.items()
    }
    assert errors["model"] != errors["bfloat16"]
    for (_, exact), (before, after) in zip(errors["model"], errors["bfloat16"], strict=True):
        assert after <= before * 1.001
        assert after == pytest.approx(exact, rel=0.15, abs=0.01)
    assert all(p.dtype == torch.float32 for p in runs["bfloat16"].pruned.model.parameters())
    again = prune(loaded, families.recipe(**CUT, recovery__compute="bfloat16"))
    assert again.pruned.identity == runs["bfloat16"].pruned.identity


def test_an_adapter_that_multiplies_otherwise_leaves_the_family_as_it_was(tiny_model):
    loaded = tiny_model("llama_grouped")
    block = loaded.adapter.blocks(loaded.model)[0]
    module = loaded.adapter.module(block, "ffn")
    hidden = torch.randn(1, 4, loaded.model.config.hidden_size)
    other = loaded.adapter.with_autocast(torch.bfloat16)
    adapters = (loaded.adapter, other)
    seen = {a.autocast_dtype: run_tapped(a, block, module, hidden, {}) for a in adapters}
    assert {dtype: tap.out_proj_input.dtype for dtype, tap in seen.items()} == {
        None: torch.float32,
        torch.bfloat16: torch.bfloat16,
    }
    assert not torch.is_autocast_enabled("cpu")


def test_copies_are_drawn_in_the_same_format(tiny_model):
    loaded = tiny_model("llama_grouped")
    drawn = {
        compute: recovery_windows(
            loaded, families.recipe(recovery__copies=4, recovery__compute=compute)
        ).ids
        for compute in ("model", "bfloat16")
    }
    same = (drawn["model"] == drawn["bfloat16"]).float().mean().item()
    assert 0.9 < same  # the odds hardly differ, and the seed is the same


def _names_float64(node: ast.AST) -> bool:
    """Whether an expression takes a tensor to float64; numpy's is another matter."""
    if not isinstance(node, ast.Attribute):
        return False
    owner = node.value.id if isinstance(node.value, ast.Name) else ""
    return node.attr == "double" or (
        node.attr in ("float64", "complex128") and owner not in ("np", "numpy")
    )


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("x.double()", True),
        ("x.sum(dtype=torch.float64)", True),
        ("x.to(torch.double)", True),
        ("x.astype(np.float64)", False),
        ("in_float64(x)", False),
    ],
)
def test_the_scan_knows_a_step_to_float64(code, found):
    assert any(map(_names_float64, ast.walk(ast.parse(code)))) is found


def test_only_one_module_takes_tensors_to_float64():
    """Apple's GPUs have none: :func:`pruning.utils.precision.to_float64` knows what to do there."""
    places = {
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in (ROOT / "pruning").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if _names_float64(node)
    }
    assert places and {place.split(":")[0] for place in places} == {"pruning/utils/precision.py"}
