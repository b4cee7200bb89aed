"""Quantised checkpoints: dequantised as their format says, the truth computed by hand, or refused
by name, alike in every placement."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import pruning
from pruning.checkpoint import save
from pruning.cli.main import main
from pruning.pipeline import prune
from pruning.utils.errors import HeadroomError
from tests.adversarial.odd_models import WEIGHTS, ids, tokenizer
from tests.helpers import families

PLACES = ("whole", "memory", "disk")
BLOCK = 16
UP = "model.layers.1.mlp.up_proj.weight"
SIZES = {"hidden_size": 48, "intermediate_size": 32, "head_dim": 8, "vocab_size": 300}


def quantised(folder, block=(BLOCK, BLOCK), dtype=torch.bfloat16, change=lambda _w, _c: None):
    """A folder in FP8, and its weights by hand: number times the scale of its block, in the
    ``dtype`` of the config."""
    model = families.llama_grouped(**SIZES)
    families.randomise(model, 5)
    model.to(dtype).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    weights, truth = load_file(folder / WEIGHTS), {}
    for name, value in list(weights.items()):
        truth[name] = value
        if "proj" not in name:
            continue
        rows, columns = value.shape
        high, wide = block or value.shape
        blocks = value.float().reshape(rows // high, high, columns // wide, wide)
        scales = blocks.abs().amax((1, 3), keepdim=True) / 448
        numbers = (blocks / scales).to(torch.float8_e4m3fn)
        truth[name] = (numbers.float() * scales).reshape(rows, columns).to(dtype)
        weights[name] = numbers.reshape(rows, columns)
        weights[f"{name}_scale_inv"] = scales[:, 0, :, 0].contiguous() if block else scales.view(())
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "weight_block_size": list(block) if block else None,
    }
    change(weights, config)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return truth


@pytest.mark.parametrize("placement", PLACES)
@pytest.mark.parametrize(
    ("block", "dtype"),
    [((BLOCK, BLOCK), torch.bfloat16), ((8, 16), torch.float32), (None, torch.float16)],
)
def test_the_numbers_are_those_of_the_format(tmp_path, block, dtype, placement):
    folder = tmp_path / "m"
    truth = quantised(folder, block, dtype)
    loaded = pruning.load(str(folder), dtype="float32", device="cpu", placement=placement)
    wanted = families.llama_grouped(**SIZES).eval()
    wanted.load_state_dict({name: value.float() for name, value in truth.items()})
    found = families.logits(loaded.model, ids())
    assert torch.equal(found, families.logits(wanted, ids()))
    assert loaded.tokenizer is not None


def test_what_is_saved_says_nothing_of_quantisation(tmp_path):
    folder = tmp_path / "m"
    truth = quantised(folder)
    loaded = pruning.load(str(folder), dtype=None, device="cpu")
    kept = save(prune(loaded, families.recipe()), tmp_path / "all", "padded")
    for name, value in load_file(kept / WEIGHTS).items():
        assert value.dtype == torch.bfloat16 and torch.equal(value, truth[name])
    run = prune(loaded, families.recipe(ffn__ratio=0.3))
    for form in ("compact", "uniform", "padded"):
        made = save(run, tmp_path / form, form)
        assert "quant" not in (made / "config.json").read_text()
        assert pruning.load(str(made), device="cpu").dtype == "bfloat16"


def test_the_command_line_reads_no_weights_to_validate(tmp_path, capsys):
    folder = tmp_path / "m"
    quantised(folder)
    recipe = tmp_path / "r.yaml"
    recipe.write_text("ffn: {ratio: 0.3}\ncalibration: {seq_len: 16}\n")
    assert main(["validate", str(recipe), str(folder), "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes_before"] == 2 * found["parameters_before"]
    assert not (tmp_path / "cache" / "models").exists()
    command = ["prune", str(folder), "--recipe", str(recipe), "--evaluate", "none"]
    assert main([*command, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert len(list((tmp_path / "cache" / "models").iterdir())) == 1


def _without_scales(weights, _config):
    del weights[f"{UP}_scale_inv"]


def _other_blocks(_weights, config):
    config["quantization_config"]["weight_block_size"] = [8, 8]


def _ragged(weights, config):
    """300 rows of blocks of 128 have three scales; three blocks of 100 are no blocks of 128."""
    weights[UP] = torch.zeros(300, 48).to(torch.float8_e4m3fn)
    weights[f"{UP}_scale_inv"] = torch.ones(3, 1)
    config["quantization_config"]["weight_block_size"] = [128, 48]


def _too_many(weights, _config):
    weights["model.norm.weight_scale_inv"] = torch.ones(1)


def _other_numbers(weights, _config):
    weights[UP] = weights[UP].float().to(torch.float8_e5m2)


def _spoilt_scale(weights, _config):
    weights[f"{UP}_scale_inv"][0, 0] = torch.nan


def _method(name):
    return lambda _weights, config: config["quantization_config"].update(quant_method=name)


REFUSED = {
    "no scales": (_without_scales, ("fp8", UP, "scales")),
    "blocks of another size": (_other_blocks, ("fp8", "8 x 8")),
    "blocks that do not fill": (_ragged, ("fp8", "128 x 48")),
    "a scale too many": (_too_many, ("fp8", "model.norm.weight")),
    "other numbers": (_other_numbers, ("fp8", UP, "F8_E5M2")),
    "NaN": (_spoilt_scale, ("NaN", UP)),
    **{
        name: (_method(name), ("quantised", name, "name the model"))
        for name in ("gptq", "awq", "bitsandbytes", "compressed-tensors", "mxfp4", "modelopt")
    },
}


@pytest.mark.parametrize("placement", PLACES)
@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_something_else_is_refused_by_name(tmp_path, name, placement):
    change, words = REFUSED[name]
    quantised(tmp_path / "m", change=change)
    with pytest.raises(HeadroomError) as caught:
        pruning.load(str(tmp_path / "m"), device="cpu", placement=placement)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert len(message.replace(str(tmp_path), "")) <= 300
    models = tmp_path / "cache" / "models"
    assert not models.exists() or not list(models.iterdir())
