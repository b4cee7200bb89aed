"""Checkpoints that a library dequantises, where it is installed: the truth computed by hand from
what is stored; without the library one sentence, alike in every placement."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest
import torch
from safetensors.torch import load_file

import pruning
from pruning.checkpoint import save
from pruning.cli.main import main
from pruning.models.loading.formats import FORMATS, base
from pruning.pipeline import prune
from pruning.utils.errors import HeadroomError, Unsupported
from tests.adversarial.odd_models import WEIGHTS, changed, ids
from tests.adversarial.quantised_files import (
    BITS,
    FOURS,
    SCHEMES,
    UP,
    compressed,
    integers,
    llama,
    of_bitsandbytes,
    same,
)
from tests.helpers import ROOT, families

PLACES = ("whole", "memory", "disk")


@pytest.mark.parametrize("name", SCHEMES)
def test_compressed_tensors_are_what_they_stand_for(tmp_path, name):
    pytest.importorskip("compressed_tensors")
    truth = compressed(tmp_path / "m", SCHEMES[name])
    for placement in PLACES if name == "w4a16" else ("whole",):
        loaded = pruning.load(str(tmp_path / "m"), dtype=None, device="cpu", placement=placement)
        if placement != "disk":
            same(loaded, truth)
        else:
            wanted = llama(torch.float32)
            wanted.load_state_dict({key: value.float() for key, value in truth.items()})
            found = families.logits(loaded.model, ids())
            assert torch.equal(found, families.logits(wanted, ids()))
    assert loaded.saved_dtype == "bfloat16"
    kept = save(prune(loaded, families.recipe()), tmp_path / "out", "padded")
    assert "quant" not in (kept / "config.json").read_text()
    for key, value in load_file(kept / WEIGHTS).items():
        assert value.dtype == torch.bfloat16 and torch.equal(value, truth[key])


def test_zero_points_that_say_nothing_may_be_there(tmp_path):
    pytest.importorskip("compressed_tensors")
    zeros = torch.zeros(32, 3, dtype=torch.int8)
    for value in (0, 1):
        change = _put(f"{UP}.weight_zero_point", zeros + value)
        truth = compressed(tmp_path / f"{value}", [FOURS], change=change)
        if value == 0:
            same(pruning.load(str(tmp_path / "0"), dtype="float32", device="cpu"), truth)
        else:
            with pytest.raises(Unsupported, match="weight_zero_point' has no place"):
                pruning.load(str(tmp_path / "1"), device="cpu")


def test_experts_are_compressed_one_by_one(tmp_path):
    pytest.importorskip("compressed_tensors")
    model, truth = families.build("mixtral", dtype=torch.bfloat16), {}
    families.randomise(model, 5)

    def quantise(weights, config):
        args = {"num_bits": 8, "strategy": "channel", "symmetric": True}
        for name, value in list(weights.items()):
            truth[name] = value
            if "experts" in name:
                stored, truth[name] = integers(value, args, packs=False)
                path = name.removesuffix(".weight")
                weights |= {f"{path}.{part}": tensor for part, tensor in stored.items()}
        groups = {"0": {"targets": ["Linear"], "weights": args, "format": "int-quantized"}}
        config["quantization_config"] = {
            "quant_method": "compressed-tensors",
            "config_groups": groups,
        }

    changed(tmp_path / "m", quantise, model)
    assert any("experts" in name for name in truth)
    loaded = pruning.load(str(tmp_path / "m"), dtype=None, device="cpu")
    kept = save(prune(loaded, families.recipe()), tmp_path / "out", "padded")
    found = load_file(kept / WEIGHTS)
    assert found.keys() == truth.keys()
    assert all(torch.equal(found[name], truth[name]) for name in truth)


@pytest.mark.parametrize("name", BITS)
def test_bitsandbytes_are_what_they_stand_for(tmp_path, name):
    pytest.importorskip("bitsandbytes")
    truth = of_bitsandbytes(tmp_path / "m", BITS[name])
    for placement in PLACES if name == "nf4" else ("whole",):
        loaded = pruning.load(str(tmp_path / "m"), dtype=None, device="cpu", placement=placement)
        if placement != "disk":
            same(loaded, truth)
    kept = save(prune(loaded, families.recipe()), tmp_path / "out", "padded")
    assert "quant" not in (kept / "config.json").read_text()
    found = load_file(kept / WEIGHTS)
    assert all(torch.equal(found[key], truth[key]) for key in found)


@pytest.mark.parametrize("how", [{"quant_type": "nf4"}, None])
def test_square_matrices_of_gpt2_are_not_turned(tmp_path, how):
    """Its layers keep their matrices the other way round; the library stores them like linear
    ones."""
    pytest.importorskip("bitsandbytes")
    model = families.build("gpt2", dtype=torch.bfloat16)
    families.randomise(model, 5)
    truth = of_bitsandbytes(tmp_path / "m", how, model, transposed=True)
    same(pruning.load(str(tmp_path / "m"), dtype=None, device="cpu"), truth)


_WITH_KERNELS = """
import sys
from pruning.models.loading.formats.bitsandbytes import _library
assert _library().QuantState and "bitsandbytes" in sys.modules
"""


def test_no_code_is_fetched_for_the_library(tmp_path):
    """It would, on some processors, where the package ``kernels`` is there."""
    pytest.importorskip("bitsandbytes")
    trap = tmp_path / "ran"
    (tmp_path / "kernels.py").write_text(
        f"def get_kernel(*_, **__):\n    open({str(trap)!r}, 'w').close()\n"
    )
    paths = [str(tmp_path), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", _WITH_KERNELS],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not trap.exists()


# ---- refusals


def _gone(name):
    return lambda weights, _config: weights.pop(name)


def _put(name, tensor):
    return lambda weights, _config: weights.update({name: tensor})


def _groups(**changes):
    def change(_weights, config):
        config["quantization_config"]["config_groups"]["group_0"].update(changes)

    return change


def _settings(**changes):
    return lambda _weights, config: config["quantization_config"].update(changes)


def _one_scale_for_all(weights, _config):
    """Which would be multiplied with all the same."""
    weights[f"{UP}.weight_scale"] = weights[f"{UP}.weight_scale"][:1].contiguous()


PACKED = {
    "no scales": (_gone(f"{UP}.weight_scale"), (UP, "missing")),
    "no shape": (_gone(f"{UP}.weight_shape"), (UP, "missing")),
    "reordered": (_put(f"{UP}.weight_g_idx", torch.zeros(48)), ("weight_g_idx", "no place")),
    "scales of one row": (_one_scale_for_all, (UP, "shape")),
    "spoilt": (_put(f"{UP}.weight_scale", torch.full((32, 3), torch.nan)), ("NaN", UP)),
    "other numbers": (_put(f"{UP}.weight_packed", torch.zeros(32, 6)), (UP, "F32")),
    "another width": (_put(f"{UP}.weight_shape", torch.tensor([32, 40])), (UP, "shape")),
    "a group for nothing": (_groups(targets=["re:.*attn.*"]), ("mlp", "group")),
    "no weights": (_groups(weights=None), ("group",)),
    "marlin": (_groups(format="marlin-24"), ("marlin-24",)),
    "3 bits": (_groups(weights={**FOURS.args, "num_bits": 3}), ("3 bits",)),
    "8 bits": (_groups(weights={**FOURS.args, "num_bits": 8}), ("shape",)),
    "turned": (_settings(transform_config={"config_groups": {"u": 1}}), ("transform_config",)),
    "sparse": (_settings(sparsity_config={"format": "sparse-24-bitmask"}), ("sparsity_config",)),
    "a tensor too many": (_put("model.layers.0.mlp.x", torch.ones(1)), ("mlp.x", "no place")),
    "one lacks": (_gone("model.norm.weight"), ("lacks", "model.norm")),
    "no groups": (lambda _w, c: c["quantization_config"].pop("config_groups"), ("dequantised",)),
}
STORED = {
    "no largest values": (_gone(f"{UP}.weight.absmax"), (UP,)),
    "too few": (_put(f"{UP}.weight.absmax", torch.ones(2)), (UP, "statistics")),
    "in half": (_put(f"{UP}.weight.absmax", torch.ones(24).half()), (UP, "statistics")),
    "a map of its own": (_put(f"{UP}.weight.quant_map", torch.zeros(16)), (UP, "map")),
    "no JSON": (
        _put(f"{UP}.weight.quant_state.bitsandbytes__nf4", torch.zeros(9, dtype=torch.uint8)),
        (UP, "statistics"),
    ),
    "half a matrix": (_put(f"{UP}.weight", torch.zeros(9, 1, dtype=torch.uint8)), (UP,)),
    "for nothing": (_put("model.norm.weight.absmax", torch.ones(1)), ("model.norm.weight",)),
}


def refused(folder, placement, words, cache):
    with pytest.raises(HeadroomError) as caught:
        pruning.load(str(folder), device="cpu", placement=placement)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert len(message.replace(str(folder.parent), "")) <= 300 and "\n" not in message
    models = cache / "models"
    assert not models.exists() or not list(models.iterdir())


@pytest.mark.parametrize("name", PACKED)
def test_odd_compressed_tensors_are_refused(tmp_path, name, own_cache):
    pytest.importorskip("compressed_tensors")
    change, said = PACKED[name]
    compressed(tmp_path / "m", [FOURS], change=change)
    refused(tmp_path / "m", "disk" if len(name) % 2 else "whole", said, own_cache)


@pytest.mark.parametrize("name", STORED)
def test_odd_bitsandbytes_are_refused(tmp_path, name, own_cache):
    pytest.importorskip("bitsandbytes")
    change, said = STORED[name]
    of_bitsandbytes(tmp_path / "m", BITS["nf4"], change=change)
    refused(tmp_path / "m", "disk" if len(name) % 2 else "whole", said, own_cache)


def test_the_order_of_another_device_is_refused(tmp_path, own_cache):
    pytest.importorskip("bitsandbytes")
    turned = _put(f"{UP}.weight_format", torch.tensor(2, dtype=torch.uint8))
    of_bitsandbytes(tmp_path / "m", None, change=turned)
    refused(tmp_path / "m", "whole", (UP, "order"), own_cache)


# ---- without the libraries


@pytest.mark.parametrize("method", ["bitsandbytes", "compressed-tensors"])
@pytest.mark.parametrize("there", [None, "0.9.2"])
def test_a_library_that_is_not_there_is_named(tmp_path, monkeypatch, method, there, own_cache):
    def release(name):
        if there is None:
            raise PackageNotFoundError(name)
        return "0.46" if name == "bitsandbytes" else there.replace("9", "14")

    monkeypatch.setattr(base, "version", release)
    assert FORMATS["fp8"].wanted() is None

    def said(weights, config):
        config["quantization_config"] = {"quant_method": method}
        weights.clear()  # nothing is read of them

    folder = changed(tmp_path / "m", said, llama())
    wanted = ("quantised", method, f"pip install '{method}>=")
    for placement in PLACES:
        refused(folder, placement, wanted, own_cache)
    recipe = tmp_path / "r.yaml"
    recipe.write_text("ffn: {ratio: 0.3}\n")
    assert main(["validate", str(recipe), str(folder), "--device", "cpu"]) != 0


def test_a_release_of_today_is_enough(monkeypatch):
    for release in ("0.50.2", "1.0", "0.46.1.post2", "2.0.0.dev0"):
        monkeypatch.setattr(base, "version", lambda _name, release=release: release)
        assert FORMATS["bitsandbytes"].wanted() is None
