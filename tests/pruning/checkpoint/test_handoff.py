"""The training script beside a saved model: it runs, and what it writes loads."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

import pruning
from pruning.checkpoint import FormOptions, parts_of, save
from pruning.checkpoint.handoff import write_handoff
from pruning.pipeline import prune
from pruning.utils.errors import UsageError
from tests.helpers import ROOT, families
from tests.helpers.form_cases import UNEVEN

SAMPLE = str(ROOT / "assets" / "sample" / "test.txt")


@pytest.fixture(scope="module")
def run(model_folder):
    loaded = pruning.load(str(model_folder), device="cpu")
    recipe = families.recipe(**UNEVEN, recovery__method="none", calibration__source=SAMPLE)
    return prune(loaded, recipe.changed(model={"source": str(model_folder)}))


@pytest.mark.slow
def test_two_steps_of_it_give_a_model_that_loads(run, tmp_path):
    folder = save(run, tmp_path / "model", options=FormOptions(handoff=True))
    place = folder / "training"
    assert sorted(file.name for file in place.iterdir()) == [
        "README.md",
        "settings.yaml",
        "train.py",
    ]
    settings = yaml.safe_load((place / "settings.yaml").read_text())
    assert settings["text"]["data_files"] == SAMPLE
    assert settings["teacher"] == run.recipe.model.source
    settings |= {"seq_len": 16, "windows": 4}
    settings["training"] |= {
        "per_device_train_batch_size": 2,
        "use_cpu": True,
        "bf16": False,
        "learning_rate": 1e-2,
        "warmup_steps": 0,
    }
    (place / "settings.yaml").write_text(yaml.safe_dump(settings))
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run(
        [sys.executable, str(place / "train.py")],
        env={**os.environ, **quiet, "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ids = families.token_ids()
    trained = pruning.load(str(place / "trained"), device="cpu").model
    before = families.logits(run.pruned.model, ids)
    after = families.logits(trained, ids)
    assert after.isfinite().all() and not torch.allclose(before, after, atol=1e-4)
    shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (trained, run.pruned.model)]
    assert shapes[0] == shapes[1]
    alone = AutoModelForCausalLM.from_pretrained(place / "trained", trust_remote_code=True)
    torch.testing.assert_close(families.logits(alone, ids), after)


def test_a_corpus_without_a_file_leaves_the_choice_of_a_text(run, tmp_path):
    parts = parts_of(run)
    recipe = parts.records.recipe.changed(calibration={"source": "sample"})
    parts = replace(parts, records=replace(parts.records, recipe=recipe))
    write_handoff(parts, "uniform", tmp_path)
    settings = yaml.safe_load((tmp_path / "training" / "settings.yaml").read_text())
    assert settings["text"]["path"] == "Salesforce/wikitext" and not settings["own_code"]
    assert settings["teacher"] == run.recipe.model.source  # a folder, from wherever the script runs
    page = (tmp_path / "training" / "README.md").read_text()
    assert "Salesforce/wikitext" in page and "trust_remote_code" not in page


@pytest.mark.parametrize("form", ["padded", "gguf"])
def test_forms_that_cannot_be_trained_are_refused_before_anything_is_written(run, tmp_path, form):
    with pytest.raises(UsageError, match="compact or uniform"):
        save(run, tmp_path / "model", form, options=FormOptions(handoff=True))
    assert not (tmp_path / "model").exists()
