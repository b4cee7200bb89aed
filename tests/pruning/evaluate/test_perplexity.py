"""Perplexity and greedy generation, computed again in another way."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys

import pytest
import torch

import pruning
from pruning.evaluate import generate, perplexity
from pruning.utils.errors import Cancelled, SourceError, UsageError
from tests.helpers.families import SAMPLE


@pytest.fixture(scope="module")
def tiny(model_folder):
    return pruning.load(str(model_folder), device="cpu")


def _independent(model, tokenizer, text, seq_len, count):
    """One window at a time, one token at a time, float64."""
    ids = tokenizer(text)["input_ids"]
    total, tokens = 0.0, 0
    for window in range(len(ids) // seq_len if count is None else count):
        piece = torch.tensor([ids[window * seq_len : (window + 1) * seq_len]])
        with torch.no_grad():
            logits = model(input_ids=piece).logits[0].double()
        for place in range(seq_len - 1):
            probs = logits[place] - torch.logsumexp(logits[place], 0)
            total -= probs[piece[0, place + 1]].item()
            tokens += 1
    return math.exp(total / tokens), tokens


@pytest.mark.parametrize(("seq_len", "count"), [(16, 5), (7, 20), (2, 3)])
def test_perplexity_is_that_of_an_independent_computation(tiny, seq_len, count):
    text = SAMPLE.read_text(encoding="utf-8")
    expected, tokens = _independent(tiny.model, tiny.tokenizer, text, seq_len, count)
    found = perplexity(tiny.model, tiny.tokenizer, str(SAMPLE), seq_len=seq_len, windows=count)
    assert found.perplexity == pytest.approx(expected, rel=1e-5)
    assert found.nll == pytest.approx(math.log(expected), rel=1e-5)
    assert (found.tokens, found.windows, found.seq_len) == (tokens, count, seq_len)


def test_all_windows_in_small_batches(tiny, tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_text(" ".join(SAMPLE.read_text(encoding="utf-8").split()[:333]))
    # the package exports a function of the module's name
    module = importlib.import_module("pruning.evaluate.perplexity")
    monkeypatch.setattr(module, "_LOGITS_PER_BATCH", 3 * 12 * 200)
    expected, tokens = _independent(tiny.model, tiny.tokenizer, path.read_text(), 12, None)
    steps = []
    found = perplexity(tiny.model, tiny.tokenizer, str(path), seq_len=12, progress=steps.append)
    assert found.perplexity == pytest.approx(expected, rel=1e-5) and found.tokens == tokens
    assert len(steps) > 5 and steps[-1].done == steps[-1].total == found.windows
    assert [step.done for step in steps] == sorted({step.done for step in steps})


def test_the_protocol_says_what_was_done(tiny):
    found = perplexity(tiny.model, tiny.tokenizer, "sample", seq_len=16, windows=3)
    sentence = found.protocol()
    for part in ("sample (test)", "3 consecutive windows of 16", "no BOS", "float32"):
        assert part in sentence
    assert found.as_dict()["split"] == "test"


def test_wrong_requests(tiny):
    for options, word in (
        ({"seq_len": 1}, "at least 2"),
        ({"windows": 0}, "at least 1"),
        ({"seq_len": 49}, "positions"),
    ):
        with pytest.raises(UsageError, match=word):
            perplexity(tiny.model, tiny.tokenizer, "sample", **options)
    with pytest.raises(SourceError, match="no tokenizer"):
        perplexity(tiny.model, None, "sample", seq_len=16)
    with pytest.raises(Cancelled):
        perplexity(tiny.model, tiny.tokenizer, "sample", seq_len=16, should_cancel=lambda: True)


def test_generation_is_greedy(tiny):
    prompt = "the history of the"
    found = generate(tiny.model, tiny.tokenizer, prompt, max_new_tokens=8)
    ids = tiny.tokenizer(prompt, return_tensors="pt")["input_ids"]
    length = ids.shape[1]
    for _ in range(8):
        with torch.no_grad():
            step = tiny.model(input_ids=ids).logits[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, step], dim=1)
        if step.item() == tiny.tokenizer.eos_token_id:
            break
    new = ids[0, length:]
    assert found.new_tokens == len(new)
    assert found.text == tiny.tokenizer.decode(new, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("prompt", "count"), [("", 4), ("  \n", 4), ("the", 0), ("the", 48), ("the " * 60, 1)]
)
def test_generation_refuses(tiny, prompt, count):
    with pytest.raises(UsageError):
        generate(tiny.model, tiny.tokenizer, prompt, max_new_tokens=count)


def test_peak_memory_is_that_of_this_process_alone():
    """A child must not report what the process that started it had in memory."""
    held = torch.ones(200_000_000, dtype=torch.uint8)
    code = (
        "import torch\nfrom pruning.evaluate.speed import peak_memory_bytes\n"
        "small = peak_memory_bytes(torch.device('cpu'))\n"
        "kept = torch.ones(300_000_000, dtype=torch.uint8)\n"
        "print(small, peak_memory_bytes(torch.device('cpu')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    small, large = map(int, done.stdout.split())
    assert held.numel() == 200_000_000
    assert large - small > 250_000_000
