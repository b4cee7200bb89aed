"""What is saved is no larger than the source by its number format alone, and is what was
evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file

import pruning
from pruning.artifacts.recipe import Recipe
from pruning.checkpoint import export, save
from pruning.checkpoint.parts import parts_of
from pruning.checkpoint.saving import rescue
from pruning.cli.main import main
from pruning.evaluate import perplexity
from pruning.models.loading.outline import outline
from pruning.pipeline import prune
from pruning.utils.errors import Unsupported
from tests.adversarial import odd_models
from tests.adversarial.odd_models import changed, ids, llama, tokenizer
from tests.helpers import families

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
FORMS = ("compact", "uniform", "padded")


@pytest.fixture
def source(tmp_path):
    """``source(dtype)``: a folder that is stored so."""

    def made(dtype: torch.dtype, **changes) -> Path:
        llama(**changes).to(dtype).save_pretrained(tmp_path / "source")
        tokenizer().save_pretrained(tmp_path / "source")
        return tmp_path / "source"

    return made


def bytes_of(folder):
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def weights_of(folder):
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


def same_bits(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype and torch.equal(value, other[name]), name


REFIT = {"ffn__ratio": 0.3, "heads__ratio": 0.3, "recovery__intercept": "add"}


@pytest.mark.parametrize("placement", ["whole", "memory", "disk"])
@pytest.mark.parametrize("dtype", HALVES)
def test_every_form_is_in_the_dtype_of_the_source_and_is_what_was_evaluated(
    source, tmp_path, dtype, placement
):
    folder = source(HALVES[dtype])
    loaded = pruning.load(str(folder), dtype=None, device="cpu", placement=placement)
    assert loaded.dtype == "float32"
    run = prune(loaded, families.recipe(**REFIT))
    wanted = families.logits(run.pruned.model, ids())
    for form in FORMS:
        made = save(run, tmp_path / form, form)
        assert {value.dtype for value in weights_of(made).values()} == {HALVES[dtype]}
        assert json.loads((made / "config.json").read_text())["dtype"] == dtype
        again = pruning.load(str(made), dtype="float32", device="cpu")
        found = families.logits(again.model, ids())
        exact = form == "compact"  # elsewhere sums have another order
        assert torch.equal(found, wanted) if exact else torch.allclose(found, wanted, atol=1e-4)
        card = (made / "README.md").read_text()
        assert f"Stored as {dtype}" in card and f"bytes ({dtype})" in card
        assert json.loads((made / "report.json").read_text())["saved_dtype"] == dtype
    assert bytes_of(tmp_path / "compact") < bytes_of(folder)
    assert run.report.after.bytes == 2 * run.report.after.parameters
    # the weights of the dense model, and what recovery found, are in memory what the file says
    stored = pruning.load(str(tmp_path / "compact"), device="cpu").model
    in_memory = run.pruned.model if placement == "whole" else None
    for name, parameter in in_memory.named_parameters() if in_memory else ():
        assert torch.equal(parameter, stored.get_parameter(name).float()), name


@pytest.mark.parametrize("recovery", ["none", "bias", "reconstruct", "full"])
def test_every_recovery_is_rounded_before_it_is_evaluated(source, recovery):
    loaded = pruning.load(str(source(torch.bfloat16)), dtype=None, device="cpu")
    run = prune(loaded, families.recipe(ffn__ratio=0.3, recovery__method=recovery))
    for name, parameter in run.pruned.model.named_parameters():
        assert torch.equal(parameter, parameter.bfloat16().float()), name


def test_experts_too(tmp_path):
    """A mixture, whose forms are stored expert by expert."""
    families.build("mixtral", dtype=torch.bfloat16).save_pretrained(tmp_path / "m")
    loaded = pruning.load(str(tmp_path / "m"), dtype=None, device="cpu")
    run = prune(loaded, families.recipe(ffn__ratio=0.3, recovery__method="full"))
    made = [save(run, tmp_path / form, form) for form in FORMS]
    for folder in made:
        assert {value.dtype for value in weights_of(folder).values()} == {torch.bfloat16}
    again = pruning.load(str(made[0]), dtype="float32", device="cpu")
    token_ids = families.token_ids()
    wanted = families.logits(run.pruned.model, token_ids)
    assert torch.equal(families.logits(again.model, token_ids), wanted)


@pytest.mark.parametrize("placement", ["whole", "disk"])
@pytest.mark.parametrize("dtype", [*HALVES.values(), torch.float32])
@pytest.mark.parametrize("tied", [False, True])
def test_what_removes_nothing_is_the_source_bit_for_bit(source, tmp_path, dtype, placement, tied):
    folder = source(dtype, tie_word_embeddings=tied)
    loaded = pruning.load(str(folder), dtype=None, device="cpu", placement=placement)
    run = prune(loaded, families.recipe())
    for form in FORMS:
        same_bits(weights_of(save(run, tmp_path / form, form)), weights_of(folder))


MIXED = {
    "a norm in float32": {"model.norm.weight": torch.float32},
    "both halves": {"model.norm.weight": torch.float16},
    "float64": {"model.norm.weight": torch.float64},
}


@pytest.mark.parametrize("name", MIXED)
def test_mixed_files_are_saved_in_what_holds_all_of_them(tmp_path, name):
    def change(weights, settings):
        settings["dtype"] = "bfloat16"
        for key, value in weights.items():
            weights[key] = (value * 1.001).to(MIXED[name].get(key, torch.bfloat16))

    folder = changed(tmp_path / "m", change)
    loaded = pruning.load(str(folder), dtype=None, device="cpu")
    made = save(prune(loaded, families.recipe()), tmp_path / "out")
    given = {name: value.float() for name, value in weights_of(folder).items()}
    same_bits(weights_of(made), given)


def test_old_buffers_do_not_count(tmp_path):
    def change(weights, _settings):
        for key, value in list(weights.items()):
            weights[key] = value.half()
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(5)

    loaded = pruning.load(str(changed(tmp_path / "m", change)), dtype=None, device="cpu")
    assert loaded.saved_dtype == "float16"


WIDE = {"hidden_size": 96, "intermediate_size": 96, "head_dim": 16}  # in blocks of 32
GGUF = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "Q8_0": torch.float16,
    "Q4_1": torch.float16,
}


def write_gguf(path, kind, model, **others):
    """Norms are in float32, as in all files; ``others``: tensors of another type."""

    def types(name, tensor):
        return "F32" if tensor.ndim == 1 else others.get(name.split(".")[0], kind)

    return odd_models.write_gguf(path, model, types=types)


def as_stored(value, kind):
    """What a matrix of a GGUF file stands for."""
    one = gguf.GGMLQuantizationType["F32" if value.ndim == 1 else kind]
    return torch.from_numpy(gguf.dequantize(gguf.quantize(value.numpy(), one), one).copy())


@pytest.mark.parametrize(
    ("kind", "placement"), [*((kind, "whole") for kind in GGUF), ("Q8_0", "disk")]
)
def test_gguf_is_saved_in_the_dtype_of_its_weights_and_is_what_was_evaluated(
    tmp_path, kind, placement
):
    model, dtype = llama(**WIDE), GGUF[kind]
    file = write_gguf(tmp_path / "m.gguf", kind, model)
    said = str(dtype).removeprefix("torch.")
    assert outline(str(file), dtype=None).shape.dtype == said  # from the header
    loaded = pruning.load(str(file), dtype=None, device="cpu", placement=placement)
    assert (loaded.dtype, loaded.saved_dtype) == ("float32", said)
    assert outline(str(file), dtype=None).shape == loaded.shape
    kept = weights_of(save(prune(loaded, families.recipe()), tmp_path / "kept", "padded"))
    names = model.state_dict()
    rotated = [name for name in names if "q_proj" in name or "k_proj" in name]  # in another order
    same_bits(
        {name: value for name, value in kept.items() if name not in rotated},
        {n: as_stored(v, kind).to(dtype) for n, v in names.items() if n not in rotated},
    )
    run = prune(loaded, families.recipe(**REFIT))
    wanted = families.logits(run.pruned.model, ids())
    made = save(run, tmp_path / "out")
    assert {value.dtype for value in weights_of(made).values()} == {dtype}
    again = pruning.load(str(made), dtype="float32", device="cpu")
    assert torch.equal(families.logits(again.model, ids()), wanted)
    assert run.report.saved_dtype == said and said in (made / "README.md").read_text()
    # asked otherwise
    for asked in ("auto", "bfloat16"):
        again = pruning.load(str(file), dtype=asked, device="cpu")
        assert again.dtype == again.saved_dtype == {"auto": "float32"}.get(asked, asked)


def test_most_weights_of_a_gguf_file_decide(tmp_path):
    model = llama(**WIDE)  # embedding and head are a third
    for number, (kind, others, wanted) in enumerate(
        [
            ("Q8_0", {"token_embd": "BF16", "output": "F32"}, "float16"),
            ("BF16", {"token_embd": "Q8_0", "output": "F16"}, "bfloat16"),
            ("F32", {"token_embd": "F16"}, "float32"),
        ]
    ):
        file = write_gguf(tmp_path / f"{number}.gguf", kind, model, **others)
        assert pruning.load(str(file), dtype=None, device="cpu").saved_dtype == wanted


def test_what_float16_cannot_hold_of_a_gguf_file_stays(tmp_path):
    model = llama(**WIDE)
    model.model.norm.weight[0] = 1e5
    file = write_gguf(tmp_path / "m.gguf", "Q8_0", model)
    loaded = pruning.load(str(file), dtype=None, device="cpu")
    assert loaded.saved_dtype == "float32" and loaded.model.model.norm.weight[0] == 1e5


ASKED = {
    "nothing": ((), torch.bfloat16),
    "float32": (("--dtype", "float32"), torch.float32),
    "float16": (("--dtype", "float16"), torch.float16),
    "auto": (("--dtype", "auto"), torch.bfloat16),
}


@pytest.mark.parametrize("name", ASKED)
def test_the_command_line_saves_in_what_is_asked_for(source, tmp_path, name, capsys):
    options, dtype = ASKED[name]
    folder, out = source(torch.bfloat16), tmp_path / "out"
    size = ("--ffn-ratio", "0.3", "--samples", "4", "--seq-len", "16", "--device", "cpu")
    text = ("--calibration", "sample", "--evaluate-windows", "2")
    command = ["prune", str(folder), *size, *text, *options, "--out", str(out), "--json"]
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert {value.dtype for value in weights_of(out).values()} == {dtype}
    assert result["saved_dtype"] == str(dtype).removeprefix("torch.")
    # the number of the card comes from the weights of the file
    again = pruning.load(str(out), dtype=result["dtype"], device="cpu")
    found = perplexity(again.model, again.tokenizer, "sample", seq_len=48, windows=2)
    assert found.perplexity == result["perplexity_after"]
    assert found.protocol() == result["protocol"] and result["dtype"] in result["protocol"]
    # and its recipe gives the same tensors again
    repeated = ["prune", str(folder), "--recipe", str(out / "recipe.yaml"), "--device", "cpu"]
    assert main([*repeated, "--evaluate", "none", "--out", str(tmp_path / "again")]) == 0
    same_bits(weights_of(tmp_path / "again"), weights_of(out))


def test_the_library_and_later_exports(source, tmp_path):
    folder = source(torch.bfloat16)
    few = {"samples": 4, "seq_len": 16, "keep": 0.8, "preset": "flap"}
    made = pruning.prune(str(folder), **few)
    saved = made.save_pretrained(tmp_path / "named")
    assert {value.dtype for value in weights_of(saved).values()} == {torch.bfloat16}
    assert made.recipe.model.dtype is None and made.report.saved_dtype == "bfloat16"
    for dtype, wanted in (("auto", torch.bfloat16), ("float32", torch.float32)):
        export(saved, tmp_path / dtype, "padded", dtype=dtype)
        assert {value.dtype for value in weights_of(tmp_path / dtype).values()} == {wanted}
    assert "Stored as float32; sizes" in (tmp_path / "float32" / "README.md").read_text()
    # what is in memory keeps its dtype, which the recipe then says
    for dtype in (torch.float32, torch.bfloat16):
        held = pruning.prune(llama().to(dtype), tokenizer(), **few)
        assert held.recipe.model.dtype == held.report.saved_dtype
        folder = held.save_pretrained(tmp_path / f"held-{held.report.saved_dtype}")
        assert {value.dtype for value in weights_of(folder).values()} == {dtype}


def test_what_is_rescued(source, tmp_path):
    loaded = pruning.load(str(source(torch.bfloat16)), dtype=None, device="cpu")
    parts = parts_of(prune(loaded, families.recipe(ffn__ratio=0.3)))
    parts.model.generation_config.temperature = -1.0  # what transformers does not save
    sentence = rescue(parts, tmp_path / "out", "compact")
    kept = Path(sentence.removesuffix(".").rpartition(" ")[2])
    assert "weights and records" in sentence
    assert {value.dtype for value in weights_of(kept).values()} == {torch.bfloat16}


def test_megabytes_are_those_of_the_file(source, tmp_path, capsys):
    folder = source(torch.bfloat16)
    limit = 0.8 * bytes_of(folder) / 1e6
    loaded = pruning.load(str(folder), dtype=None, device="cpu")
    run = prune(loaded, families.recipe(budget__megabytes=limit, recovery__method="none"))
    size = 2 * sum(value.numel() for value in weights_of(save(run, tmp_path / "out")).values())
    assert 0.95 * limit < size / 1e6 <= limit
    forecast = ["validate", str(tmp_path / "out" / "recipe.yaml"), str(folder), "--device", "cpu"]
    assert main(forecast) == 0
    said = capsys.readouterr().out
    assert "computed in: float32\nsaved in: bfloat16\n" in said


_FFN = ("up", "gate", "down")


def test_what_float16_cannot_hold_is_refused(tmp_path):
    """A recovery that needs larger weights than the source's format has."""

    def change(weights, _settings):
        for key, value in list(weights.items()):
            weights[key] = value.half()
        # all channels are alike and tiny: those that stay must take over the others' large weights
        up, gate, down = (weights[f"model.layers.0.mlp.{n}_proj.weight"] for n in _FFN)
        up.copy_(up[:1].clone() * 1e-4)
        gate.copy_(gate[:1].clone())
        down.fill_(5e4)

    folder = changed(tmp_path / "m", change)
    loaded = pruning.load(str(folder), dtype=None, device="cpu")
    recipe = families.recipe(ffn__ratio=0.9, recovery__damping=1e-6)
    with pytest.raises(Unsupported, match="too large for float16.*--dtype float32"):
        prune(loaded, recipe)
    prune(pruning.load(str(folder), dtype="float32", device="cpu"), recipe)


def test_old_recipes_say_what_they_always_said():
    """They name float32, so they give float32 again."""
    assert Recipe.parse({"model": {"dtype": "float32"}}).model.dtype == "float32"
    assert Recipe.from_yaml(Recipe().to_yaml()).model.dtype is None
