"""The shipped measurement serves the model and text that it was made of, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pruning.artifacts import shipped
from pruning.artifacts.recipe import Recipe
from pruning.data.windows import Windows
from pruning.measure.passes import run_passes, shipped_pass
from pruning.measure.shipped import shipped_measurement
from pruning.models.loading.demo import CONVERTED

KNOWN = shipped.demo_measurement()
WINDOWS = Windows(
    torch.zeros(KNOWN.samples, KNOWN.seq_len, dtype=torch.int64),
    KNOWN.corpus,
    KNOWN.corpus_fingerprint,
    KNOWN.seed,
    "none",
)
EMBEDDED = SimpleNamespace(
    source="demo", dtype="float32", identity=f"/cache/models/{CONVERTED}|model.safetensors:1"
)


def test_it_is_found_for_its_model_and_text():
    assert shipped_measurement(EMBEDDED, WINDOWS, KNOWN.seed) is KNOWN
    (found,) = {id(run_passes([shipped_pass(KNOWN, EMBEDDED.identity)]))}
    assert found == id(KNOWN)


@pytest.mark.parametrize(
    "other",
    [
        {"source": "a/b"},
        {"dtype": "bfloat16"},
        {"identity": EMBEDDED.identity.replace(CONVERTED, "another")},
        {"identity": f"{EMBEDDED.identity}|pruned:1"},
    ],
)
def test_another_model_is_measured(other):
    loaded = SimpleNamespace(**{**vars(EMBEDDED), **other})
    assert shipped_measurement(loaded, WINDOWS, KNOWN.seed) is None


def test_another_text_is_measured():
    shorter = replace(WINDOWS, ids=WINDOWS.ids[:, :-1])
    fewer = replace(WINDOWS, ids=WINDOWS.ids[1:])
    for windows in (shorter, fewer, replace(WINDOWS, fingerprint="another")):
        assert shipped_measurement(EMBEDDED, windows, KNOWN.seed) is None
    assert shipped_measurement(EMBEDDED, WINDOWS, KNOWN.seed + 1) is None


def test_a_recipe_knows_without_loading_anything():
    text = {"source": KNOWN.corpus, "samples": KNOWN.samples, "seq_len": KNOWN.seq_len}
    recipe = Recipe.parse({"calibration": text, "ffn": {"ratio": 0.3}, "seed": KNOWN.seed})
    assert shipped.is_measured(recipe)
    assert shipped.is_measured(recipe.changed(calibration={"gradient_samples": 3}))
    for other in (
        {"seed": 7},
        {"model": {"dtype": "bfloat16"}},
        {"model": {"source": "a/b"}},
        {"calibration": {"samples": 8}},
        {"calibration": {"bos": "every"}},
    ):
        assert not shipped.is_measured(recipe.changed(**other))
