"""GGUF files of pruned models, run by llama.cpp itself. ``make test-llamacpp`` sets it up.

llama.cpp lives in an environment of its own: its Python of choice is named by
HEADROOM_LLAMACPP_PYTHON, `.venv-llamacpp/bin/python` by default. llama.cpp's own converter of
checkpoints comes from the same sources; HEADROOM_CONVERTER names another copy of it, and
HEADROOM_CONVERTER_PYTHON another Python (with torch, transformers and sentencepiece) to run it.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import pruning
from pruning.checkpoint import FormOptions, export, save
from pruning.pipeline import prune
from tests.helpers import ROOT, families
from tests.helpers.tiny_configs import CONFIGS

pytestmark = pytest.mark.llamacpp

PYTHON = os.environ.get("HEADROOM_LLAMACPP_PYTHON", str(ROOT / ".venv-llamacpp" / "bin" / "python"))
HOME = ROOT / ".venv-llamacpp"
CONVERTER = os.environ.get(
    "HEADROOM_CONVERTER", str(HOME / "source" / "vendor" / "llama.cpp" / "convert_hf_to_gguf.py")
)
CONVERTER_PYTHON = os.environ.get("HEADROOM_CONVERTER_PYTHON", sys.executable)
TEXT = (ROOT / "assets" / "sample" / "test.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """Measurements of tiny models stay out of the user's cache; the demo's conversion is there."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_HUB_OFFLINE", "1")
    yield
    patch.undo()


def converted(folder, file):
    """``folder`` as ``file`` (f32) by llama.cpp's own converter."""
    path = os.pathsep.join([str(HOME / "converter"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [CONVERTER_PYTHON, CONVERTER, str(folder), "--outfile", str(file), "--outtype", "f32"],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return file


def ask(file, windows, prompt, new_tokens=16, text=""):
    """llama.cpp's answers, see ask.py."""
    asked = {
        "file": str(file),
        "text": text,
        "windows": windows,
        "prompt": prompt,
        "new_tokens": new_tokens,
    }
    done = subprocess.run(
        [PYTHON, str(Path(__file__).with_name("ask.py"))],
        input=json.dumps(asked),
        text=True,
        capture_output=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@torch.no_grad()
def nll_of(model, windows):
    """Mean negative log-likelihood by transformers, in float32."""
    total, count = 0.0, 0
    for ids in windows:
        ids = torch.tensor([ids])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].double()
        total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        count += ids.shape[1] - 1
    return total / count


@torch.no_grad()
def behind(model, prompt, written):
    """How far each written token's logit is behind the best one, at most: 0 when all are what
    transformers would choose after the same tokens, ties of rounding aside."""
    ids = torch.tensor([prompt + written])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    chosen = logits.gather(1, torch.tensor(written)[:, None])[:, 0]
    return (logits.max(-1).values - chosen).max().item()


TINY = {
    "grouped": {},
    "scaled": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 2.0,
            "original_max_position_embeddings": 16,
        }
    },
    "stretched": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
    "biased": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
}


def tiny(kind):
    """A Llama with settings of its own, or a Mistral whose window reaches over all positions."""
    if kind == "mistral":
        settings = {**CONFIGS["mistral"][1], "sliding_window": None}
        return AutoModelForCausalLM.from_config(AutoConfig.for_model("mistral", **settings))
    return families.llama_grouped(**TINY[kind])


@pytest.mark.parametrize("kind", [*TINY, "mistral"])
@pytest.mark.parametrize("method", ["refit", "bias"])
def test_uneven_widths_and_added_biases(kind, method, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADROOM_CACHE", str(tmp_path / "cache"))
    model = tiny(kind)
    families.randomise(model, 5)
    dense = families.wrap(model.eval().requires_grad_(False), f"{kind}-{method}")
    recipe = families.recipe(
        heads__ratio=0.34, ffn__ratio=0.4, recovery__method=method, blocks={"start": 1, "end": 3}
    )
    run = prune(dense, recipe)
    assert len(set(run.widths)) > 1
    windows = families.token_ids(4, 30).tolist()
    nll = nll_of(run.pruned.model, windows)
    file = tmp_path / "tiny.gguf"
    for stored, close in (("f32", 2e-3), ("f16", 1e-2), ("q8_0", 5e-2)):
        save(run, file, "gguf", options=FormOptions(gguf_type=stored))
        found = ask(file, windows, windows[0][:8])
        assert math.isclose(found["nll"], nll, abs_tol=close), stored
        assert behind(run.pruned.model, windows[0][:8], found["written"]) < 10 * close, stored


def test_ungrouped_blocks(tmp_path, monkeypatch):
    """As many key/value heads as query heads in one block, shared ones in the others."""
    monkeypatch.setenv("HEADROOM_CACHE", str(tmp_path / "cache"))
    model = families.llama_grouped()
    families.randomise(model, 5)
    dense = families.wrap(model.eval().requires_grad_(False), "ungrouped")
    recipe = families.recipe(
        heads__ratio=0.67, heads__policy="ungroup", ffn__ratio=0.4, blocks={"start": 1, "end": 2}
    )
    run = prune(dense, recipe)
    assert [(w.heads, w.kv_heads) for w in run.widths] == [(6, 2), (2, 2), (6, 2)]
    windows = families.token_ids(4, 30).tolist()
    file = tmp_path / "tiny.gguf"
    save(run, file, "gguf", options=FormOptions(gguf_type="f32"))
    found = ask(file, windows, windows[0][:8])
    assert math.isclose(found["nll"], nll_of(run.pruned.model, windows), abs_tol=2e-3)
    assert behind(run.pruned.model, windows[0][:8], found["written"]) < 2e-2


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The embedded model, pruned at other widths in some blocks, saved compact."""
    dense = pruning.load("demo", dtype="float32", device="cpu")
    recipe = pruning.Recipe.parse(
        {
            "calibration": {"source": "sample", "samples": 8, "seq_len": 128},
            "blocks": {"start": 3, "end": 28},
            "heads": {"ratio": 0.3, "policy": "kv_group"},
            "ffn": {"ratio": 0.2},
            "recovery": {"method": "bias"},
        }
    )
    run = prune(dense, recipe)
    return run, save(run, tmp_path_factory.mktemp("demo") / "compact")


@pytest.mark.parametrize(
    ("stored", "share", "tie"), [("f32", 0.001, 0.001), ("f16", 0.01, 0.02), ("q8_0", 0.02, 1.0)]
)
def test_the_embedded_model_writes_the_same_and_is_as_good(demo, stored, share, tie, tmp_path):
    run, folder = demo
    file = tmp_path / "demo.gguf"
    export(folder, file, "gguf", options=FormOptions(gguf_type=stored))
    as_good(run.pruned, file, stored, share, tie)


@pytest.mark.parametrize("method", ["none", "bias"])
def test_the_uniform_form_goes_through_llama_cpps_own_converter(method, tmp_path):
    dense = pruning.load("demo", dtype="float32", device="cpu")
    recipe = pruning.Recipe.parse(
        {
            "calibration": {"source": "sample", "samples": 4, "seq_len": 64},
            "heads": {"ratio": 0.34},
            "ffn": {"ratio": 0.25},
            "recovery": {"method": method},
        }
    )
    run = prune(dense, recipe)
    assert {(w.heads, w.kv_heads, w.channels) for w in run.widths} == {(6, 3, 1152)}
    folder = save(run, tmp_path / "uniform", "uniform")
    as_good(run.pruned, converted(folder, tmp_path / "demo.gguf"), "converted", 0.01, 0.02)


def as_good(loaded, file, stored, share, tie):
    """llama.cpp reads the same tokens from text, gives it the same perplexity and continues it
    the same way."""
    tokenizer, model = loaded.tokenizer, loaded.model
    text = TEXT[:6000] + " In 2024, 1,234 of 56789 (12.5%) l'été naïve 中文 🙂\n\n  x = [1, 2]"
    ids = tokenizer(text).input_ids
    windows = [ids[start : start + 128] for start in range(0, 8 * 128, 128)]
    prompt = tokenizer("The water cycle describes how water moves").input_ids
    nll = nll_of(model, windows)
    found = ask(file, windows, prompt, text=text)
    assert found["tokens"] == ids
    print(f"{stored}: perplexity {math.exp(found['nll']):.3f} by llama.cpp, {math.exp(nll):.3f}")
    assert abs(math.exp(found["nll"] - nll) - 1) < share
    assert behind(model, prompt, found["written"]) < tie


def test_a_sentencepiece_tokenizer(tmp_path, monkeypatch):
    """Byte fallback and the space mark of Llama 1 and 2."""
    monkeypatch.setenv("HEADROOM_CACHE", str(tmp_path / "cache"))
    tokenizer = sentencepiece_like()
    model = families.llama_grouped(vocab_size=len(tokenizer) + 3)
    families.randomise(model, 6)
    dense = families.wrap(model.eval().requires_grad_(False), "pieces")
    dense = type(dense)(**{**vars(dense), "tokenizer": tokenizer})
    run = prune(dense, families.recipe(ffn__ratio=0.4))
    file = tmp_path / "pieces.gguf"
    save(run, file, "gguf")
    text = TEXT[:3000] + " naïve 中文 🙂 12345"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    found = ask(file, [ids[:40]], ids[:8], text=text)
    assert found["tokens"] == ids


def sentencepiece_like():
    """A small tokenizer of Llama 2's kind, trained on the sample text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    pieces.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    from tokenizers import pre_tokenizers

    # for training only: pieces must not reach over words
    pieces.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False
    )
    pieces.train_from_iterator([TEXT], trainer)
    data = json.loads(pieces.to_str())
    data["pre_tokenizer"] = None
    data["added_tokens"] = [t for t in data["added_tokens"] if not t["content"].startswith("<0x")]
    again = Tokenizer.from_str(json.dumps(data))
    again.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=again, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
