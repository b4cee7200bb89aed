"""Saving is all or nothing; a saved recipe reproduces its run; the hub only on command."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file

import pruning
from pruning.artifacts.provenance import Provenance
from pruning.checkpoint import FormOptions, save
from pruning.checkpoint.zip import move_into_zip
from pruning.cli.main import main
from pruning.pipeline import prune
from pruning.utils.atomic_dir import file_aside, written_aside
from pruning.utils.errors import HeadroomError, SourceError, UsageError
from tests.helpers import ROOT, families

SMALL = ["--samples", "4", "--seq-len", "16", "--device", "cpu"]

# each child saves in a loop, so that the kill falls anywhere in it; no progress bars, for
# processes share their lock, and a child that dies with it stops all that come after
SAVE_AND_DIE = """
import os, signal, sys, time
from tests.helpers import families
from pathlib import Path
from pruning.checkpoint import save
from pruning.pipeline import prune
from transformers.utils import logging
logging.disable_progress_bar()
run = prune(families.loaded("llama_grouped"), families.recipe(ffn__ratio=0.4))
started = time.perf_counter()
save(run, Path(sys.argv[1] + "-first"))
print(time.perf_counter() - started, flush=True)
for _ in range(40):
    child = os.fork()
    while child == 0:
        save(run, Path(sys.argv[1]))
    order = sys.stdin.readline()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("killed", flush=True)
    if order == "last\\n":
        break
"""


@pytest.fixture(scope="module")
def run(tiny_model):
    return prune(tiny_model("llama_grouped"), families.recipe(ffn__ratio=0.4))


def test_killed_while_saving_never_leaves_a_broken_folder(tmp_path):
    """Twenty kills at other moments, or more until something was saved: what stands under the
    name always loads."""
    target = tmp_path / "model"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", SAVE_AND_DIE, str(target)],
        cwd=ROOT,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        one_save = float(process.stdout.readline())
        whole = 0
        for moment in range(40):
            time.sleep(one_save * min(moment, 19) / 10)
            patience = time.monotonic() + 20  # a busy machine may be late, a fork hang on a lock
            while moment >= 19 and not target.exists() and time.monotonic() < patience:
                time.sleep(0.01)
            last = moment >= 19 and whole > 0
            process.stdin.write("last\n" if last else "next\n")
            process.stdin.flush()
            assert process.stdout.readline() == "killed\n"
            if target.exists():
                pruning.load(str(target), device="cpu")
                assert (target / "README.md").is_file() and (target / "plan.json").is_file()
                whole += 1
            if last:
                break
        assert whole > 0
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with the child that saves
        process.wait()
    assert len(list(tmp_path.glob(".model.*"))) <= 3  # the next save sweeps what a kill left
    with written_aside(target) as place:
        (place / "recipe.yaml").write_text("")
    assert not list(tmp_path.glob(".model.*"))


def _plainly(path):
    with open(path, "w") as file:
        file.write("text")


def _by_numpy(path):
    with open(path, "wb", buffering=0) as file:
        np.zeros(9000).tofile(file)


def _by_tokenizers(path):
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE()).save(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("write", [_plainly, _by_numpy, _by_tokenizers])
@pytest.mark.parametrize("aside", [written_aside, file_aside])
def test_every_writer_tells_a_full_disk_in_the_same_line(tmp_path, write, aside):
    """Each of the libraries reports it in its own way; all of them are needed for some form."""
    with pytest.raises(HeadroomError, match="^The disk is full; .*out was not written.$"):
        with aside(tmp_path / "out"):
            write("/dev/full")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["compact", "padded", "uniform"])
def test_a_disk_that_fills_up_while_saving_leaves_nothing(run, tmp_path, monkeypatch, form):
    def full(*_args, **_kwargs):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(type(run.pruned.model), "save_pretrained", full)
    with pytest.raises(HeadroomError, match="^The disk is full; .* was not written.$"):
        save(run, tmp_path / "out", form)
    assert not list(tmp_path.iterdir())


def test_a_gguf_file_is_never_short(run, tmp_path):
    """The system refuses the last bytes, where tensors are smaller than a buffer."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "m.gguf"
    save(run, path, "gguf", options=FormOptions(gguf_type="f32"))
    size = path.stat().st_size
    path.unlink()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for missing in (1, 40, 400, 4000):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, limits[1]))
            with pytest.raises(HeadroomError, match="m.gguf (was not|cannot be) written"):
                save(run, path, "gguf", options=FormOptions(gguf_type="f32"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert not list(tmp_path.iterdir()), missing


def test_other_failures_of_writing_are_one_line_too(tmp_path):
    with pytest.raises(HeadroomError, match="out cannot be written: Input/output error.$"):
        with written_aside(tmp_path / "out"):
            raise OSError(errno.EIO, "Input/output error")
    with pytest.raises(ZeroDivisionError), written_aside(tmp_path / "out"):
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


def test_one_file_is_whole_or_absent(tmp_path):
    with pytest.raises(RuntimeError), file_aside(tmp_path / "m.gguf") as place:
        place.write_bytes(b"half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with file_aside(tmp_path / "m.gguf") as place:
        place.write_bytes(b"whole")
    assert (tmp_path / "m.gguf").read_bytes() == b"whole"
    assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"]


def _command(capsys, *arguments):
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


@pytest.fixture(scope="module")
def first(model_folder, tmp_path_factory):
    """A run of the command line on disk, read only."""
    out = tmp_path_factory.mktemp("first") / "pruned"
    arguments = [
        "prune",
        model_folder,
        "--calibration",
        "sample",
        *SMALL,
        "--ffn-ratio",
        "0.3",
        "--head-ratio",
        "0.4",
        "--out",
        out,
    ]
    assert main([str(argument) for argument in arguments]) == 0
    return out


def test_the_saved_recipe_gives_the_same_tensors(first, model_folder, tmp_path, capsys):
    recipe = first / "recipe.yaml"
    out = tmp_path / "second"
    status, _, err = _command(
        capsys, "prune", model_folder, "--recipe", recipe, "--device", "cpu", "--out", out
    )
    assert status == 0 and "note" not in err, err
    one, other = (load_file(folder / "model.safetensors") for folder in (first, out))
    assert one.keys() == other.keys() and all(bool((one[k] == other[k]).all()) for k in one)
    assert recipe.read_text() == (out / "recipe.yaml").read_text()


def test_what_differs_from_the_recorded_run_is_said(first, model_folder, tmp_path, capsys):
    data = yaml.safe_load((first / "recipe.yaml").read_text())
    assert Provenance.read(first / "recipe.yaml").versions["torch"]
    data["provenance"]["versions"]["torch"] = "1.0"
    data["provenance"] |= {"corpus": "0", "model_weights": "1", "model_revision": "abc", "seed": 5}
    data["provenance"]["products"] = "bfloat16"
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(data))
    status, _, err = _command(
        capsys,
        "prune",
        model_folder,
        "--recipe",
        tmp_path / "r.yaml",
        "--device",
        "cpu",
        "--out",
        tmp_path / "out",
        "--evaluate",
        "none",
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


def test_a_recipe_from_the_future(first, model_folder, tmp_path, capsys):
    data = yaml.safe_load((first / "recipe.yaml").read_text()) | {"version": 99}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(data))
    status, out, err = _command(
        capsys, "prune", model_folder, "--recipe", tmp_path / "r.yaml", "--out", tmp_path / "x"
    )
    assert (status, out) == (2, "") and err.count("\n") == 1 and "version 99" in err
    (tmp_path / "r.yaml").write_text("provenance: {versions: 3}\n")
    with pytest.raises(UsageError, match="damaged provenance"):
        Provenance.read(tmp_path / "r.yaml")


def test_a_form_that_does_not_fit_keeps_the_run(model_folder, tmp_path, capsys):
    status, out, err = _command(
        capsys,
        "prune",
        model_folder,
        "--calibration",
        "random",
        *SMALL,
        "--allocation",
        "adaptive",
        "--ffn-ratio",
        "0.3",
        "--form",
        "uniform",
        "--out",
        tmp_path / "out",
        "--evaluate",
        "none",
    )
    assert (status, out) == (1, "")
    assert "differ in width" in err and "compact form was written" in err.splitlines()[-1]
    assert pruning.load(str(tmp_path / "out"), device="cpu").model is not None


def test_unknown_forms_and_targets_are_refused_before_work(model_folder, tmp_path, capsys):
    status, out, err = _command(
        capsys, "prune", "/no/such/model", "--form", "zip", "--out", tmp_path / "x"
    )
    assert (status, out) == (2, "") and "choose one of: compact" in err and err.count("\n") == 1
    (tmp_path / "m.gguf").mkdir()
    status, out, err = _command(
        capsys, "prune", "/no/such/model", "--form", "gguf", "--out", tmp_path / "m.gguf"
    )
    assert (status, out) == (2, "") and "is a folder" in err


def test_export_on_the_command_line(first, tmp_path, capsys):
    status, out, err = _command(
        capsys, "export", first, "--form", "padded", "--out", tmp_path / "padded", "--json"
    )
    assert status == 0 and '"form": "padded"' in out, err
    # the test tokenizer is of a kind that llama.cpp does not have
    status, out, err = _command(
        capsys, "export", first, "--form", "gguf", "--out", tmp_path / "m.gguf"
    )
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


def test_push_needs_a_command_and_a_token(first, tmp_path, capsys, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    status, out, err = _command(capsys, "push", first, "me/model")
    assert (status, out) == (2, "") and "HF_TOKEN" in err and err.count("\n") == 1
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert _command(capsys, "push", first, "model")[0] == 2
    assert _command(capsys, "push", tmp_path, "me/model")[0] == 1
    status, out, _ = _command(capsys, "push", first, "me/model", "--private")
    assert status == 0 and "https://hub/me/model" in out
    assert Hub.asked == ["secret", "me/model", True, first]
    monkeypatch.setenv("HF_TOKEN", "refused")
    status, out, err = _command(capsys, "push", first, "me/model")
    assert status == 1 and err.count("\n") == 1 and "token refused" not in err and "403" in err


def test_a_report_that_was_damaged(first, tmp_path):
    import shutil

    from pruning.checkpoint.records import Records

    folder = shutil.copytree(first, tmp_path / "copy")
    assert Records.read(folder).report.blocks[0].heads.kept == 4
    (folder / "report.json").write_text("{}")
    with pytest.raises(SourceError, match="report.json is damaged"):
        Records.read(folder)


def test_packing_gives_each_file_back_once_it_is_in_the_archive(tmp_path):
    """So that the disk never holds a model twice."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_text(name * 5)
    left = {}

    def callbacks(step):
        left[step.message] = sorted(path.name for path in folder.iterdir())

    move_into_zip(folder, tmp_path / "model.zip", progress=callbacks)
    assert left == {"Packing a": ["a", "b", "c"], "Packing b": ["b", "c"], "Packing c": ["c"]}
    assert not folder.exists() and (tmp_path / "model.zip").is_file()
