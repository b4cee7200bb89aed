"""Model folders and GGUF files with a few bytes of their headers changed: the numbers of plain
transformers, or one sentence, and nothing left behind."""

from __future__ import annotations

import json
import shutil
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

import pruning
from pruning.models.loading.loaded import LoadedModel
from pruning.utils.errors import HeadroomError
from tests.adversarial import odd_models
from tests.adversarial.odd_models import WEIGHTS, ids
from tests.helpers import families
from tests.helpers.fuzzing import fuzzed, outcome

_numbers = st.integers(-3, 400) | st.sampled_from([2**31, 2**63, 10**30, 0.5, float("nan")])
_others = st.none() | st.booleans() | st.text(max_size=6) | st.lists(_numbers, max_size=3)
_values = st.one_of(_numbers, _others, st.sampled_from(["F16", "BF16", "F8_E4M3", "I32", "U8"]))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "m"
    return odd_models.changed(folder, lambda _weights, _config: None)


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    return odd_models.write_gguf(folder / "m.gguf", odd_models.llama())


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder for one try; whatever the try leaves beside it is seen."""
    monkeypatch.setenv("HEADROOM_CACHE", str(tmp_path / "cache"))

    def fresh():
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        shutil.rmtree(tmp_path / "try", ignore_errors=True)
        (tmp_path / "try").mkdir()
        return tmp_path / "try"

    yield fresh
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "try"}


def loaded(place, placement="whole"):
    """What is made of ``place``: the logits, or the sentence."""
    work = lambda: pruning.load(str(place), device="cpu", placement=placement)  # noqa: E731
    found = outcome(work, HeadroomError)
    if isinstance(found, LoadedModel):
        few = ids() % found.model.config.vocab_size
        return families.logits(found.model, few), few
    return found, None


def as_plain_transformers(folder, found, few):
    if few is None:
        return
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    wanted = families.logits(model, few)
    assert torch.equal(found.float(), wanted) or found.dtype != torch.float32


def split(path):
    """The JSON header of a safetensors file, and the rest."""
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


_keys = st.sampled_from(["dtype", "shape", "data_offsets", "more"])
_edits = st.lists(st.tuples(st.integers(0, 40), _keys, _values | st.just(...)), max_size=2)


@fuzzed(25)
@given(
    edits=_edits,
    swapped=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=1),
    cut=st.sampled_from([0, 0, 0, 1, 100, 10**6]),
    placement=st.sampled_from(["whole", "disk"]),
)
def test_fuzz_safetensors_headers(source, place, edits, swapped, cut, placement):
    folder = shutil.copytree(source, place() / "m")
    header, data = split(folder / WEIGHTS)
    names = [name for name in header if name != "__metadata__"]
    for number, key, value in edits:
        entry = header.get(names[number % len(names)])
        if isinstance(entry, dict):
            if value is ...:
                entry.pop(key, None)
            else:
                entry[key] = value
    for one, other in swapped:
        one, other = names[one % len(names)], names[other % len(names)]
        header[one], header[other] = header[other], header[one]
    text = json.dumps(header).encode()
    content = struct.pack("<Q", len(text)) + text + data
    (folder / WEIGHTS).write_bytes(content[: max(len(content) - cut, 0)])
    as_plain_transformers(folder, *loaded(folder, placement))


@fuzzed(25)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 3000), st.integers(0, 4), st.binary(max_size=4)), max_size=3
    ),
    placement=st.sampled_from(["whole", "disk"]),
)
def test_fuzz_safetensors_bytes(source, place, edits, placement):
    folder = shutil.copytree(source, place() / "m")
    content = (folder / WEIGHTS).read_bytes()
    for where, removed, added in edits:
        content = content[:where] + added + content[where + removed :]
    (folder / WEIGHTS).write_bytes(content)
    as_plain_transformers(folder, *loaded(folder, placement))


ABSURD = {
    "no activation": ({"hidden_act": ""}, ""),
    "no heads": ({"num_attention_heads": 0}, ""),
    "heads that do not divide": ({"num_attention_heads": 7}, "not a multiple"),
    "no blocks": ({"num_hidden_layers": 0}, "0 blocks"),
    "blocks without end": ({"num_hidden_layers": 2**31}, f"{2**31} blocks"),
    "a norm larger than memory": ({"hidden_size": 6 * 2**34}, f"{6 * 2**34}"),
    "more channels than can be counted": ({"intermediate_size": 2**31}, f"matrix of {2**31} x 48"),
    "an embedding larger than any": ({"vocab_size": 2**62}, ""),
    "a type of nobody": ({"model_type": "\U00018cd6\U00018d09" * 30}, "does not know"),
    "a width below zero": ({"intermediate_size": -5}, ""),
}
"""Changes of a config, and a word of what is said of them."""


@pytest.mark.parametrize("name", ABSURD)
def test_configs_of_which_there_is_no_model(source, place, name):
    changes, word = ABSURD[name]
    folder = shutil.copytree(source, place() / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    sentence, few = loaded(folder)
    assert few is None and word in sentence, sentence


_settings = st.sampled_from(
    sorted(odd_models.llama().config.to_dict()) + ["quantization_config", "auto_map", "headroom"]
)


@fuzzed(40)
@given(changes=st.dictionaries(_settings, _values | st.just(...), max_size=2))
def test_fuzz_configs(source, place, changes):
    folder = shutil.copytree(source, place() / "m")
    config = json.loads((folder / "config.json").read_text())
    for name, value in changes.items():
        if value is ...:
            config.pop(name, None)
        else:
            config[name] = value
    (folder / "config.json").write_text(json.dumps(config))
    found, few = loaded(folder)
    switches = {"return_dict", "output_attentions", "output_hidden_states", "use_cache"}
    if not switches & changes.keys():
        as_plain_transformers(folder, found, few)


@fuzzed(25)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 3000), st.integers(0, 2), st.binary(max_size=3)), max_size=3
    )
)
def test_fuzz_gguf_headers(gguf_file, place, edits):
    """What llama.cpp would compute cannot be asked here: no traceback, and no file of a refusal."""
    file = place() / "m.gguf"
    content = gguf_file.read_bytes()
    for where, removed, added in edits:
        content = content[:where] + added + content[where + removed :]
    file.write_bytes(content)
    found, few = loaded(file)
    models = file.parent.parent / "cache" / "models"
    kept = list(models.iterdir()) if models.exists() else []
    assert len(kept) == (few is not None)
    if content == gguf_file.read_bytes():
        assert torch.equal(found, families.logits(odd_models.llama(), ids()))
