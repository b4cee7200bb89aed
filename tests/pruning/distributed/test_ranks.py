"""Ranks that share the windows give what one process gives: the same plan, the same tensors."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from pruning.cli.main import main
from pruning.distributed.ranks import ALONE, Ranks
from pruning.models.execution.blockwise import share_of
from pruning.utils.errors import UsageError
from tests.helpers import ROOT, families
from tests.helpers.processes import Command
from tests.helpers.ranks import together

EVEN = {"source": "sample", "samples": 256, "seq_len": 16}
"""Two batches: each rank has one."""
ODD = {"source": "sample", "samples": 21, "seq_len": 16}
ROUNDING = 5e-6
"""What float32 leaves of a fit when a batch is divided, as it does between two batch sizes."""

REFIT = {"ffn": {"ratio": 0.3}, "recovery": {"method": "refit", "scope": "all", "copies": 0}}
RECIPES = {
    "refit": {"calibration": EVEN, **REFIT},
    "refit of few windows": {"calibration": ODD, **REFIT},
    "full, scores taken again": {
        "calibration": EVEN,
        "ffn": {"ratio": 0.3},
        "heads": {"ratio": 0.34},
        "recovery": {"method": "full", "rescore": True, "in_proj": "checked", "copies": 0},
    },
    "similar heads, bias": {
        "calibration": EVEN,
        "heads": {"threshold": 0.6},
        "recovery": {"method": "bias", "copies": 0},
    },
    "adaptive": {
        "calibration": EVEN,
        "heads": {"score": "flap"},
        "ffn": {"score": "flap"},
        "allocation": "adaptive",
        "budget": {"kept": 0.7},
        "recovery": {"method": "none", "rescore": False},
    },
    "gradients": {
        "calibration": {**ODD, "gradient_samples": 7, "gradient_seq_len": 16},
        "heads": {"ratio": 0.34, "score": "taylor_element2"},
        "ffn": {"ratio": 0.3, "score": "taylor_element1"},
        "recovery": {"method": "none", "rescore": False},
    },
    "loss curves, augmentations": {
        "calibration": ODD,
        "allocation": "predicted",
        "budget": {"kept": 0.7},
        "recovery": {"method": "refit", "copies": 2},
    },
    "elimination": {
        "calibration": {**ODD, "curve_samples": 12},
        "allocation": "predicted",
        "budget": {"kept": 0.7},
        "recovery": {"method": "refit", "choice": "elimination", "copies": 1},
    },
}


class Rank(Ranks):
    def __init__(self, rank, size):
        self.rank, self.size = rank, size


@pytest.mark.parametrize("samples", [3, 8, 21, 128 * 3, 128 * 3 + 5, 128 * 60])
def test_every_window_is_on_one_rank(samples):
    shares = [share_of(Rank(rank, 3), samples, 16) for rank in range(3)]
    assert [share.start for share in shares] == [0, *(share.stop for share in shares[:-1])]
    assert shares[-1].stop == samples and all(share.stop > share.start for share in shares)
    assert share_of(ALONE, samples, 16) == slice(0, samples)
    with pytest.raises(UsageError, match="3 processes cannot share 2 windows"):
        share_of(Rank(0, 3), 2, 16)


def same(folder, other, within=1e-6):
    """The units of every module that are left, and the distance of every tensor to its norm."""
    assert removed(folder) == removed(other)
    here, there = (load_file(place / "model.safetensors") for place in (folder, other))
    assert here.keys() == there.keys()
    far = {name: float((here[name] - there[name]).norm() / here[name].norm()) for name in here}
    assert max(far.values()) < within, {name: value for name, value in far.items() if value}


def removed(folder):
    plan = json.loads((folder / "plan.json").read_text())
    return [[block[kind]["removed"] for kind in ("attention", "ffn")] for block in plan["blocks"]]


def prune_both_ways(folder, recipe, place):
    """``one`` and ``two`` in ``place``: pruned by one process, and by two ranks."""
    path = place / "recipe.yaml"
    path.write_text(json.dumps({"model": {"source": str(folder)}, **recipe}))
    words = f"prune {folder} --recipe {path} --device cpu --evaluate none --out".split()
    alone = Command([*words, str(place / "one")], place / "cache", place / "log")
    ended = together([*words, str(place / "two")], place / "ranks")
    assert [alone.end().status, *(end.status for end in ended)] == [0, 0, 0], ended
    assert "[prune " in ended[0].said and ended[1].said == ""
    assert any(units for block in removed(place / "one") for units in block)


@pytest.mark.parametrize("name", RECIPES)
def test_two_ranks_give_the_tensors_of_one_process(name, model_folder, tmp_path):
    prune_both_ways(model_folder, RECIPES[name], tmp_path)
    whole = RECIPES[name]["calibration"] is EVEN and "full" not in name
    same(tmp_path / "one", tmp_path / "two", 1e-6 if whole else ROUNDING)


@pytest.mark.parametrize(("family", "samples"), [("mixtral", 4), ("stablelm_parallel", 21)])
def test_other_layouts_are_shared_as_well(family, samples, tmp_path):
    """Experts to which hardly a token is routed, and blocks whose modules read the same input."""
    families.build(family).save_pretrained(tmp_path / "model")
    text = {"source": "random", "samples": samples, "seq_len": 16}
    recipe = {**RECIPES["full, scores taken again"], "calibration": text}
    prune_both_ways(tmp_path / "model", recipe, tmp_path)
    same(tmp_path / "one", tmp_path / "two", ROUNDING)


@pytest.mark.slow
def test_torchrun_starts_the_ranks(model_folder, tmp_path):
    words = f"prune {model_folder} --ffn-ratio 0.3 --recovery refit --samples 8 --seq-len 16"
    more = ["--device", "cpu", "--evaluate", "none", "--out"]
    started = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--standalone", "-m", "pruning", *words.split(), *more, str(tmp_path / "two")),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HEADROOM_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert started.returncode == 0, started.stderr
    assert started.stdout.count("saved_dtype: ") == 1  # one result
    assert main([*words.split(), *more, str(tmp_path / "one")]) == 0
    same(tmp_path / "one", tmp_path / "two", ROUNDING)


def test_a_wrong_request_is_said_once(model_folder, tmp_path):
    words = f"prune {model_folder} --ffn-ratio 0.2 --device cpu --samples 1 --seq-len 16 --out"
    first, second = together([*words.split(), str(tmp_path / "out")], tmp_path / "few")
    assert first.status == 2 and second.status == 1 and second.said == ""
    assert first.said == (
        "headroom: 2 processes cannot share 1 windows; start fewer, or take more samples.\n"
    )
    assert not (tmp_path / "out").exists()


def test_commands_that_nobody_shares_say_so(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["evaluate", "demo"]) == 2
    assert "'evaluate' is for one process" in capsys.readouterr().err
