"""Presets are whole methods that leave model, text and size alone."""

from __future__ import annotations

import pytest

from pruning.artifacts.recipe import Recipe
from pruning.pipeline import prune
from pruning.presets import PRESETS, with_preset
from pruning.utils.errors import UsageError
from tests.helpers import families

MINE = Recipe.parse(
    {
        "model": {"source": "a/b"},
        "calibration": {"source": "random", "samples": 7, "seq_len": 12, "curve_samples": 3},
        "blocks": {"start": 1},
        "heads": {"ratio": 0.4, "threshold": 0.1},
        "ffn": {"ratio": 0.3, "multiple": 8},
        "budget": {"kept": 0.7},
        "recovery": {"damping": 3.0},
        "seed": 5,
    }
)


@pytest.mark.parametrize("name", PRESETS.names())
def test_a_preset_sets_the_method_and_nothing_else(name):
    found = with_preset(MINE, name)
    assert (found.model, found.blocks, found.budget, found.seed) == (
        MINE.model,
        MINE.blocks,
        MINE.budget,
        MINE.seed,
    )
    text = PRESETS[name].get("calibration", {"curve_samples": None})
    assert found.calibration == MINE.calibration.model_copy(update=text)
    assert (found.heads.ratio, found.ffn.ratio, found.ffn.multiple) == (0.4, 0.3, 8)
    assert found.heads.threshold is None and found.recovery.damping == "auto"
    for section, fields in PRESETS[name].items():
        value = getattr(found, section)
        wanted = fields.items() if isinstance(fields, dict) else [(None, fields)]
        for field, setting in wanted:
            assert (getattr(value, field) if field else value) == setting
    assert with_preset(found, name) == found


def test_the_paper_differs_from_its_letter_in_the_second_layers_target_alone():
    paper, literal = (with_preset(MINE, name) for name in ("paper", "paper_literal"))
    assert (paper.recovery.target, literal.recovery.target) == ("residual", "dense")
    assert paper.changed(recovery={"target": "dense"}) == literal
    assert len(PRESETS.entry("paper_literal").summary) <= 300


def test_an_unknown_preset_is_refused_with_the_list():
    with pytest.raises(UsageError, match="best"):
        with_preset(MINE, "magic")


@pytest.mark.parametrize("name", PRESETS.names())
def test_every_preset_prunes_to_the_budget(tiny_model, name):
    loaded = tiny_model("llama_grouped")
    recipe = families.recipe(calibration__seq_len=16, budget__kept=0.75)
    run = prune(loaded, with_preset(recipe, name))
    assert run.report.kept_block_parameters == pytest.approx(0.75, abs=0.03)
    ids = families.token_ids()
    assert families.logits(run.pruned.model, ids).isfinite().all()
