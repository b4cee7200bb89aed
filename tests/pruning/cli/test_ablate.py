"""``headroom ablate``: what it prints is what the engine says, and wrong use is one line."""

from __future__ import annotations

import json

import pytest

from pruning.ablation import leave_one_out, masks_for, read, what_if
from pruning.artifacts.ablation import Ablation
from pruning.artifacts.recipe import Recipe
from pruning.cli.main import main
from pruning.models.loading import load
from pruning.pipeline import measure_model

RECIPE = "calibration: {samples: 4, seq_len: 16}\n"
TEXT = ["--tokens", "20", "--windows", "2", "--sentence", "The river and the sea"]


@pytest.fixture
def ablate(model_folder, tmp_path, capsys):
    """``ablate(*arguments)`` gives ``(exit status, stdout, stderr)``."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")

    def call(*arguments):
        common = ["--device", "cpu", "--recipe", str(recipe), *TEXT]
        try:
            status = main(["ablate", str(model_folder), *common, *arguments])
        except SystemExit as ended:
            status = ended.code
        return status, *capsys.readouterr()

    return call


def test_everything_at_once(ablate, model_folder):
    status, out, _ = ablate(
        *("--heads", "1.2", "--groups", "0.1", "--ffn", "2:0.3", "--block", "1", "--json")
    )
    assert status == 0
    found = json.loads(out)
    loaded = load(str(model_folder), device="cpu")
    recipe = Recipe.from_yaml(RECIPE)
    measured = measure_model(loaded, recipe)
    reading = read(loaded, TEXT[-1], seq_len=20, windows=2)
    off = Ablation(heads=((1, 2), (0, 3), (0, 4), (0, 5)), ffn=((2, 0.3),))
    expected = what_if(loaded, reading, off, masks_for(off, loaded.shape, measured, recipe))
    change = found["what_if"]["change"]
    assert change["kl"] == pytest.approx(expected.change.kl, rel=1e-5)
    assert change["loss_after"] == pytest.approx(expected.change.loss_after, rel=1e-6)
    assert 0.0 < found["what_if"]["seconds"] < 60.0
    assert found["what_if"]["off"] == "heads 0.3, 0.4, 0.5, 1.2; 30% of FFN 2"
    assert [t["text"] for t in found["what_if"]["next"]["tokens"]] == [
        token.text for token in expected.next.tokens
    ]
    each = leave_one_out(loaded, reading, 1, measured)
    assert [c["kl"] for c in found["leave_one_out"]["changes"]] == pytest.approx(
        [change.kl for change in each.changes], rel=1e-4
    )


def test_people_read_tables(ablate):
    status, out, _ = ablate("--blocks", "2", "--block", "0")
    assert status == 0
    assert "off: block 2" in out and "kl: " in out and "seconds: " in out
    assert "'The river and the sea'" in out
    assert "every head of block 0 alone" in out and "second_moment" in out and "spearman" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Nothing to switch off"),
        (["--heads", "3.0"], "no block 3"),
        (["--heads", "1"], "BLOCK.NUMBER"),
        (["--heads", "1.9"], "no head 9"),
        (["--groups", "0.2"], "no key/value group 2"),
        (["--ffn", "1"], "BLOCK:SHARE"),
        (["--ffn", "1:x"], "BLOCK:SHARE"),
        (["--ffn", "1:2"], "share 2"),
        (["--blocks", "x"], "BLOCK, like 7"),
        (["--block", "7"], "no block 7"),
        (["--blocks", "1", "--windows", "99"], "1 to 16 windows"),
        (["--blocks", "1", "--tokens", "999"], "positions"),
        (["--blocks", "1", "--text", "wikitex"], "wikitext"),
    ],
)
def test_wrong_use_is_one_line(ablate, arguments, words):
    status, out, err = ablate(*arguments)
    assert (status, out) == (2, "") and words in err
    assert err.count("\n") == 1 and len(err) < 320
