"""Saving is all or nothing."""

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
from safetensors import SafetensorError

import pruning
from pruning.checkpoint import FormOptions, save
from pruning.checkpoint.zip import move_into_zip
from pruning.pipeline import prune
from pruning.utils.atomic_dir import file_aside, written_aside
from pruning.utils.errors import HeadroomError
from tests.helpers import ROOT, families

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
