"""A saved run: its recipe gives it again, it is exported, and sent to the hub only on command."""

from __future__ import annotations

import shutil

import huggingface_hub
import pytest
import yaml
from safetensors.torch import load_file

import pruning
from pruning.artifacts.provenance import Provenance
from pruning.checkpoint.records import Records
from pruning.cli.main import main
from pruning.utils.errors import SourceError, UsageError

SMALL = "--samples 4 --seq-len 16 --device cpu"


@pytest.fixture(scope="module")
def first(model_folder, tmp_path_factory):
    """A run of the command line on disk, read only."""
    out = tmp_path_factory.mktemp("first") / "pruned"
    line = f"prune {model_folder} --calibration sample {SMALL} --ffn-ratio 0.3 --head-ratio 0.4"
    assert main([*line.split(), "--out", str(out)]) == 0
    return out


def test_the_saved_recipe_gives_the_same_tensors(first, model_folder, tmp_path, run):
    recipe = first / "recipe.yaml"
    out = tmp_path / "second"
    status, _, err = run(f"prune {model_folder} --recipe {recipe} --device cpu --out {out}")
    assert status == 0 and "note" not in err, err
    one, other = (load_file(folder / "model.safetensors") for folder in (first, out))
    assert one.keys() == other.keys() and all(bool((one[k] == other[k]).all()) for k in one)
    assert recipe.read_text() == (out / "recipe.yaml").read_text()


def test_what_differs_from_the_recorded_run_is_said(first, model_folder, tmp_path, run):
    data = yaml.safe_load((first / "recipe.yaml").read_text())
    assert Provenance.read(first / "recipe.yaml").versions["torch"]
    data["provenance"]["versions"]["torch"] = "1.0"
    data["provenance"] |= {"corpus": "0", "model_weights": "1", "model_revision": "abc", "seed": 5}
    data["provenance"]["products"] = "bfloat16"
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(data))
    status, _, err = run(
        f"prune {model_folder} --recipe {tmp_path}/r.yaml --device cpu --out {tmp_path}/out "
        "--evaluate none"
    )
    assert status == 0
    (note,) = [line for line in err.splitlines() if line.startswith("headroom: note")]
    for part in (
        "weights (revision abc then, None now)",
        "calibration tokens",
        "torch (1.0 then",
        "the seed (5 then, 0 now)",
        "the autocast dtype (bfloat16 then, float32 now)",
    ):
        assert part in note, note
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Perplexity was not measured" in card


def test_the_command_measures_the_cards_perplexity(first):
    card = (first / "README.md").read_text()
    assert "| perplexity |" in card and "Protocol: sample (test)" in card


def test_a_recipe_from_the_future(first, model_folder, tmp_path, run):
    data = yaml.safe_load((first / "recipe.yaml").read_text()) | {"version": 99}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(data))
    status, out, err = run(f"prune {model_folder} --recipe {tmp_path}/r.yaml --out {tmp_path}/x")
    assert (status, out) == (2, "") and err.count("\n") == 1 and "version 99" in err
    (tmp_path / "r.yaml").write_text("provenance: {versions: 3}\n")
    with pytest.raises(UsageError, match="damaged provenance"):
        Provenance.read(tmp_path / "r.yaml")


def test_a_form_that_does_not_fit_keeps_the_run(model_folder, tmp_path, run):
    status, out, err = run(
        f"prune {model_folder} --calibration random {SMALL} --allocation adaptive --ffn-ratio 0.3 "
        f"--form uniform --out {tmp_path}/out --evaluate none"
    )
    assert (status, out) == (1, "")
    assert "differ in width" in err and "compact form was written" in err.splitlines()[-1]
    assert pruning.load(str(tmp_path / "out"), device="cpu").model is not None


def test_unknown_forms_and_targets_are_refused_before_work(model_folder, tmp_path, run):
    status, out, err = run(f"prune /no/such/model --form zip --out {tmp_path}/x")
    assert (status, out) == (2, "") and "choose one of: compact" in err and err.count("\n") == 1
    (tmp_path / "m.gguf").mkdir()
    status, out, err = run(f"prune /no/such/model --form gguf --out {tmp_path}/m.gguf")
    assert (status, out) == (2, "") and "is a folder" in err


def test_export_on_the_command_line(first, tmp_path, run):
    status, out, err = run(f"export {first} --form padded --out {tmp_path}/padded --json")
    assert status == 0 and '"form": "padded"' in out, err
    # the test tokenizer is of a kind that llama.cpp does not have
    status, out, err = run(f"export {first} --form gguf --out {tmp_path}/m.gguf")
    assert (status, out) == (1, "") and "WordLevel" in err and not (tmp_path / "m.gguf").exists()


class Hub:
    """Stands in for HfApi and records what it is asked."""

    def __init__(self, token):
        self.token = token
        Hub.asked = [token]

    def create_repo(self, name, *, private, exist_ok):
        if self.token == "refused":
            raise PermissionError(f"403 for token {self.token}\nmore")
        Hub.asked += [name, private]
        return f"https://hub/{name}"

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        Hub.asked.append(folder_path)


def test_push_needs_a_command_and_a_token(first, tmp_path, run, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    status, out, err = run(f"push {first} me/model")
    assert (status, out) == (2, "") and "HF_TOKEN" in err and err.count("\n") == 1
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert run(f"push {first} model")[0] == 2
    assert run(f"push {tmp_path} me/model")[0] == 1
    status, out, _ = run(f"push {first} me/model --private")
    assert status == 0 and "https://hub/me/model" in out
    assert Hub.asked == ["secret", "me/model", True, first]
    monkeypatch.setenv("HF_TOKEN", "refused")
    status, out, err = run(f"push {first} me/model")
    assert status == 1 and err.count("\n") == 1 and "token refused" not in err and "403" in err


def test_a_report_that_was_damaged(first, tmp_path):
    folder = shutil.copytree(first, tmp_path / "copy")
    assert Records.read(folder).report.blocks[0].heads.kept == 4
    (folder / "report.json").write_text("{}")
    with pytest.raises(SourceError, match="report.json is damaged"):
        Records.read(folder)
