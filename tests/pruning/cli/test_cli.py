"""The command line's contract: one JSON object on stdout, one line on failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import pruning
from pruning.artifacts.measurement import Measurement
from tests.helpers import PATIENCE, ROOT
from tests.helpers.families import SAMPLE

SMALL = "--samples 4 --seq-len 16 --device cpu"


def _one_line(text: str) -> bool:
    return text.endswith("\n") and text.count("\n") == 1


WRONG = {
    "no command": "",
    "unknown command": "train demo",
    "no model": "measure --out m.json",
    "no output": "prune demo",
    "unknown option": "evaluate demo --text sample --colour red",
    "text for a number": "evaluate demo --text sample --windows many",
    "ratio of one": "prune demo --out x --ffn-ratio 1.0",
    "threshold too large": "prune demo --out x --head-threshold 0.8",
    "unknown recovery": "prune demo --out x --recovery magic",
    "unknown criterion": "prune demo --out x --ffn-score magic",
    "unknown policy": "prune demo --out x --head-policy magic",
    "range without a colon": "prune demo --out x --blocks 3",
    "empty range": "prune demo --out x --blocks 5:3",
    "unknown dtype": "prune demo --out x --dtype int8",
    "absent recipe": "prune demo --out x --recipe /absent/recipe.yaml",
    "no samples": "measure demo --out m.json --samples 0",
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_one_line_and_status_2(run, case):
    status, out, err = run(WRONG[case])
    assert (status, out) == (2, "")
    assert _one_line(err), err


def test_wrong_use_found_with_the_model(run, model_folder, tmp_path):
    for line in (
        f"evaluate {model_folder} --text wikitex --device cpu",
        f"evaluate {model_folder} --text random --device cpu",
        f"evaluate {model_folder} --text sample --seq-len 999 --device cpu",
        f"evaluate {model_folder} --text sample --device tpu",
        f"generate {model_folder} --prompt ' ' --device cpu",
        f"prune {model_folder} --out {tmp_path}/x --blocks 0:9 --calibration random {SMALL}",
    ):
        status, out, err = run(line)
        assert (status, out) == (2, ""), err
        last = err.splitlines()[-1]
        assert last.startswith("headroom: ") and "Traceback" not in err
    assert not (tmp_path / "x").exists()


def test_failed_work_is_one_line_and_status_1(run, model_folder, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    for line in (
        f"evaluate {tmp_path}/absent --text sample",
        f"evaluate {tmp_path} --text sample",
        f"evaluate {model_folder} --text {tmp_path}/empty.txt --seq-len 16 --device cpu",
        f"generate {tmp_path}/absent.gguf --prompt hello",
        f"measure {model_folder} --calibration random {SMALL} --out {tmp_path}/empty.txt/m.json",
    ):
        status, out, err = run(line)
        assert (status, out) == (1, ""), err
        lines = [line for line in err.splitlines() if not line.startswith("[")]
        assert len(lines) == 1 and lines[0].startswith("headroom: "), err


def test_measure(run, model_folder, tmp_path):
    out = tmp_path / "m.json"
    status, printed, err = run(
        f"measure {model_folder} --calibration sample {SMALL} --seed 5 --out {out} --json"
    )
    assert status == 0, err
    result, measured = json.loads(printed), Measurement.read(out)
    assert (measured.samples, measured.seq_len, measured.seed) == (4, 16, 5)
    assert result["blocks"] == len(measured.blocks) == 3
    assert measured.corpus == "sample" and "[measure 3/3]" in err


def test_scores_that_need_a_gradient_pass(run, model_folder, tmp_path):
    out, common = tmp_path / "m.json", f"--calibration sample {SMALL}"
    status, _, err = run(f"measure {model_folder} {common} --gradients --out {out}")
    assert status == 0 and "Gradients of block 0" in err, err
    assert "taylor_vector" in Measurement.read(out).blocks[0].attention.statistics
    status, _, err = run(
        f"prune {model_folder} {common} --ffn-ratio 0.3 --ffn-score taylor_element2 --out "
        f"{tmp_path}/pruned"
    )
    assert status == 0 and "[prune " in err, err


PRUNE_KEYS = {
    "parameters_before",
    "parameters_after",
    "kept_block_parameters",
    "seconds",
    "peak_memory_bytes",
    "blocks",
}


def test_prune_then_evaluate_then_generate(run, model_folder, tmp_path):
    out = tmp_path / "pruned"
    status, printed, err = run(
        f"prune {model_folder} --calibration random {SMALL} --head-ratio 0.4 --ffn-ratio 0.3 "
        f"--blocks 1:3 --out {out} --json"
    )
    assert status == 0, err
    result = json.loads(printed)
    assert result.keys() >= PRUNE_KEYS
    assert result["parameters_after"] < result["parameters_before"]
    assert 0 < result["kept_block_parameters"] < 1 and result["peak_memory_bytes"] > 10**7
    kept = [(b["heads"]["kept"], len(b["heads"]["removed"])) for b in result["blocks"]]
    assert kept == [(6, 0), (4, 2), (4, 2)]
    channels = [(b["channels"]["kept"], len(b["channels"]["removed"])) for b in result["blocks"]]
    assert channels == [(37, 0), (26, 11), (26, 11)]
    last = result["blocks"][2]["channels"]
    assert last["error_after"] <= last["error_before"]

    live = pruning.load(str(out), device="cpu").model
    assert sum(p.numel() for p in live.parameters()) == result["parameters_after"]

    status, printed, err = run(
        f"evaluate {out} --text {SAMPLE} --seq-len 16 --windows 3 --device cpu --json"
    )
    assert status == 0, err
    result = json.loads(printed)
    assert result.keys() >= {
        "perplexity",
        "nll",
        "tokens",
        "windows",
        "seq_len",
        "dtype",
        "seconds",
    }
    assert (result["tokens"], result["windows"], result["seq_len"]) == (45, 3, 16)
    assert result["dtype"] == "float32" and result["perplexity"] > 1

    status, printed, err = run(
        f"generate {out} --prompt 'the city of' --max-new-tokens 5 --device cpu --json"
    )
    assert status == 0, err
    assert 1 <= json.loads(printed)["new_tokens"] <= 5


def test_options_override_the_recipe(run, model_folder, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "calibration: {source: random, samples: 3, seq_len: 12}\n"
        "ffn: {ratio: 0.5, score: second_moment}\nrecovery: {method: none}\nseed: 4\n"
    )
    status, printed, err = run(
        f"prune {model_folder} --recipe {recipe} --ffn-ratio 0.1 --head-threshold 0.2 --recovery "
        f"bias --device cpu --out {tmp_path}/out --json"
    )
    assert status == 0, err
    saved = pruning.Recipe.read(tmp_path / "out" / "recipe.yaml")
    assert saved.ffn.ratio == 0.1 and saved.ffn.score == "second_moment"
    assert saved.heads.threshold == 0.2 and saved.recovery.method == "bias"
    assert (saved.calibration.samples, saved.calibration.seq_len, saved.seed) == (3, 12, 4)
    assert saved.model.source == str(model_folder)
    assert json.loads(printed)["recipe"] == json.loads(json.dumps(saved.model_dump()))


def test_a_foreign_folder_is_refused_before_any_work(run, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    status, out, err = run(f"prune /no/such/model --out {tmp_path} --ffn-ratio 0.1")
    assert (status, out) == (2, "") and _one_line(err) and "not empty" in err
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_readable_output_without_json(run, model_folder):
    status, out, _ = run(
        f"evaluate {model_folder} --text {SAMPLE} --seq-len 16 --windows 2 --device cpu"
    )
    assert status == 0 and "perplexity: " in out and "tokens: 30" in out


def _process(line):
    return subprocess.run(
        [sys.executable, "-m", "pruning", *line.split()],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=PATIENCE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_a_real_process_prints_nothing_but_the_object(model_folder):
    done = _process(f"generate {model_folder} --prompt the --max-new-tokens 2 --device cpu --json")
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict) and _one_line(done.stdout)
    assert all(line.startswith("[") for line in done.stderr.splitlines()), done.stderr


def test_a_real_process_fails_with_its_status(tmp_path):
    done = _process(f"prune demo --out {tmp_path}/x --ffn-ratio 2")
    assert (done.returncode, done.stdout) == (2, "") and _one_line(done.stderr), done.stderr
    done = _process(f"evaluate {tmp_path}/absent --text sample")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("headroom: ")
    assert "Traceback" not in done.stderr


def test_help_names_every_command(run):
    status, out, _ = run("--help")
    assert status == 0
    assert all(command in out for command in ("measure", "prune", "evaluate", "generate"))
