"""Broken engines that the pretended device finds out, and broken devices that the engine does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pruning.evaluate import generate, perplexity, read_with_both, tokens_per_second
from pruning.models.execution import blockwise
from pruning.models.fingerprint import fingerprint
from pruning.models.loading.first_check import first_check
from pruning.models.loading.resolve import resolve_device
from pruning.pipeline import measure_model, prune
from pruning.surgery.streams import ModulePair
from pruning.utils.errors import OutOfMemory, UsageError
from tests.helpers import families
from tests.helpers import virtual_device as virtual_device_module
from tests.helpers.on_device import CUT, moved
from tests.helpers.virtual_device import WrongDevice, virtual_device

MUTANTS = {
    "float64 in one step": (
        "mps",
        "pruning.measure.moments.to_float64",
        lambda tensor: tensor.to("cpu", torch.float64),
    ),
    "float64 where there is none": (
        "mps",
        "pruning.utils.precision.float64_device",
        lambda device: device,
    ),
    "a stream that stays on the CPU": (
        "cuda",
        "pruning.surgery.streams.ModulePair._tapped",
        lambda pair, block, module, hidden: _tapped_on_the_cpu(pair, block, module, hidden),
    ),
    "statistics straight to numpy": (
        "cuda",
        "pruning.measure.forward_pass._plain",
        lambda tensor: tensor.detach().float().numpy(),
    ),
    "new weights that stay where they were solved": (
        "mps",
        "pruning.surgery.task.layer_like",
        lambda layer: torch.zeros(0),
    ),
}


def _tapped_on_the_cpu(pair: ModulePair, block, module, hidden):
    from pruning.models.execution.tap import run_tapped

    return run_tapped(pair.adapter, block, module, hidden, pair.context)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_engine_is_found_out(name, monkeypatch):
    kind, place, broken = MUTANTS[name]
    monkeypatch.setattr(place, broken)
    monkeypatch.setattr(blockwise, "STREAM_BYTES", 0)  # so that streams come and go
    with virtual_device(kind):
        loaded = replace(moved("llama_grouped", kind), identity=name)
        with pytest.raises(WrongDevice):
            prune(loaded, families.recipe(**CUT))


@pytest.mark.parametrize(("kind", "most"), [("cuda", 0), ("mps", 6)])
def test_measuring_hardly_waits_for_the_device(kind, most, monkeypatch):
    """On cards not at all, elsewhere to have sums in float64."""
    monkeypatch.setattr(blockwise, "TOKENS_PER_BATCH", 64)  # four windows
    counts = []
    for samples in (8, 16):
        with virtual_device(kind) as waits:
            loaded = replace(moved("llama_grouped", kind), identity=f"{kind}-waits-{samples}")
            measure_model(loaded, families.recipe(calibration__samples=samples))
            counts.append(sum(n for line, n in waits.items() if "blockwise" not in line))
    more_batches = 2
    assert counts[0] and (counts[1] - counts[0]) / (more_batches * families.BLOCKS) <= most


@pytest.mark.parametrize("seq_len", [2, 16])  # fewer tokens than channels, and more
def test_a_solve_waits_for_the_device_once_per_damping(seq_len, monkeypatch):
    factor, factors = torch.linalg.cholesky_ex, []
    monkeypatch.setattr(
        torch.linalg, "cholesky_ex", lambda gram: factors.append(len(gram)) or factor(gram)
    )
    with virtual_device("cuda") as waits:
        loaded = replace(moved("llama_grouped", "cuda"), identity=f"solve-waits-{seq_len}")
        recipe = families.recipe(calibration__samples=10, calibration__seq_len=seq_len, **CUT)
        run = prune(loaded, recipe)
        solving = sum(n for line, n in waits.items() if line.startswith("recovery/solvers/"))
        gram = sum(n for line, n in waits.items() if line.startswith("recovery/solvers/gram"))
    # besides: scales, and the errors of the present weights (twice) and of those that were found
    assert len(factors) > 2 * len(run.events)
    assert 0 < solving - gram <= len(factors) + 6 * len(run.events)


@pytest.fixture
def unchecked():
    """Devices as if none had been checked yet, before and after."""
    first_check.cache_clear()
    yield
    first_check.cache_clear()


def test_devices_that_are_not_there_are_refused_with_those_that_are(unchecked):
    with virtual_device("cuda", cards=2):
        assert resolve_device("auto") == "cuda" and resolve_device("cuda:1") == "cuda:1"
        for name in ("cuda:7", "cuda:x", "cuda:-1", "mps", "gpu"):
            with pytest.raises(UsageError, match=r"choose auto or one of: cuda, cuda:0, cuda:1, c"):
                resolve_device(name)
    with virtual_device("mps"):
        assert resolve_device("auto") == "mps"
        with pytest.raises(UsageError, match=r"'mps:3' is not present; .*: mps, mps:0, cpu\.$"):
            resolve_device("mps:3")


def _fails(*_args, **_kwargs):
    raise NotImplementedError("The operator 'aten::linalg_cholesky_ex' is not implemented")


BROKEN = {
    "fails at a small forward pass": ("torch.linalg.cholesky_ex", _fails),
    "computes a small forward pass otherwise": (
        "torch.nn.functional.silu",
        lambda x: x if x.device.type == "cpu" else x * 0,
    ),
}


@pytest.mark.parametrize("kind", ["cuda", "mps"])
@pytest.mark.parametrize("sentence", BROKEN)
def test_a_device_that_computes_wrongly_is_not_used(sentence, kind, unchecked, monkeypatch):
    monkeypatch.setattr(*BROKEN[sentence])
    with virtual_device(kind):
        with pytest.raises(UsageError, match=f"{kind} {sentence}.*; choose cpu") as refused:
            resolve_device(kind)
        with pytest.warns(UserWarning, match=f"{kind} {sentence}.*; working on the CPU"):
            assert resolve_device("auto") == "cpu"
    assert len(str(refused.value)) <= 300


def test_the_cpu_has_one_number():
    assert resolve_device("cpu:0") == "cpu"
    with pytest.raises(UsageError, match=r"'cpu:1' is not present"):
        resolve_device("cpu:1")


def test_a_device_is_checked_once(unchecked):
    with virtual_device("cuda"):
        for _ in range(3):
            assert resolve_device("cuda") == "cuda"
    assert first_check.cache_info().misses == 1


EXHAUSTED = pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB, max allowed: 9 GB)."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"),
        MemoryError(),
    ],
)
EVALUATIONS = {
    "perplexity": lambda m, t: perplexity(m, t, "sample", seq_len=16, windows=2),
    "token losses": lambda m, t: read_with_both(m, m, t, "sample", seq_len=16, windows=2),
    "generation": lambda m, t: generate(m, t, "A word", max_new_tokens=2),
    "speed": lambda m, t: tokens_per_second(m, prompt_tokens=4, new_tokens=2, repeats=1),
}


@EXHAUSTED
@pytest.mark.parametrize("name", EVALUATIONS)
def test_an_evaluation_that_exhausts_memory_is_one_sentence(name, error, tokenizer, monkeypatch):
    model = families.loaded("llama_grouped").model
    model.resize_token_embeddings(len(tokenizer))

    def exhausted(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(model, "forward", exhausted, raising=False)
    with pytest.raises(OutOfMemory, match=r"The memory of cpu is exhausted; use .* device\.$"):
        EVALUATIONS[name](model, tokenizer)


@EXHAUSTED
def test_every_exhausted_memory_is_one_sentence(error, monkeypatch):
    loaded = families.loaded("gpt2")

    def exhausted(*_args, **_kwargs):
        raise error

    monkeypatch.setattr("pruning.pipeline.run_passes", exhausted)
    with pytest.raises(OutOfMemory, match="The memory of cpu is exhausted; use fewer"):
        prune(loaded, families.recipe())


def test_other_errors_stay_what_they_are(monkeypatch):
    def fails(*_args, **_kwargs):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("pruning.pipeline.run_passes", fails)
    with pytest.raises(RuntimeError, match="shapes cannot"):
        prune(families.loaded("gpt2"), families.recipe())


def test_a_fingerprint_brings_only_what_it_looks_at(monkeypatch):
    sizes, handled = [], virtual_device_module._handled

    def watched(func, args, kwargs):
        if virtual_device_module._name(func) in ("cpu", "to"):
            sizes.append(args[0].numel())
        return handled(func, args, kwargs)

    with virtual_device("cuda"):
        loaded = moved("llama_grouped", "cuda")
        monkeypatch.setattr(virtual_device_module, "_handled", watched)
        there = fingerprint(loaded.model)
    assert there == fingerprint(families.build("llama_grouped"))
    assert sizes and max(sizes) <= 64
