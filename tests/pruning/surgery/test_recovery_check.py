"""Never worse than doing nothing: the recovered model beside the plain cut."""

from __future__ import annotations

import weakref

import pytest
import torch

import pruning
from pruning.data import calibration_windows
from pruning.models.loading import load
from pruning.pipeline import measure_model, prune
from pruning.planning import make_plan
from pruning.surgery import recovery_check
from pruning.surgery.recovery_check import compare, plain_cut_logits
from tests.helpers import families

CUT = {"heads__ratio": 0.3, "ffn__ratio": 0.3, "recovery__rescore": False}
EVERY_KIND = ("llama_grouped", "gpt2", "mixtral", "qwen2_moe", "gemma2", "falcon_grouped", "bloom")


def plan_of(tiny, recipe):
    return make_plan(measure_model(tiny, recipe), recipe)


@pytest.mark.parametrize("family", EVERY_KIND)
def test_the_plain_cut_is_that_of_a_run_without_recovery(tiny_model, family):
    tiny = tiny_model(family)
    recipe = families.recipe(**CUT, recovery__method="none")
    plan, ids = plan_of(tiny, recipe), families.token_ids(5, 16)
    before = families.snapshot(tiny.model)
    with torch.no_grad():
        found = torch.cat([logits for _, logits in plain_cut_logits(tiny.model, plan, ids, 2)])
    wanted = families.logits(prune(tiny, recipe, plan=plan).pruned.model, ids)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert families.unchanged(tiny.model, before)


def test_one_block_of_the_plain_cut_exists_at_a_time(tiny_model, monkeypatch):
    tiny, made, alive = tiny_model("llama_grouped"), [], []
    cut_block = recovery_check._cut_block

    def counted(*arguments):
        alive.append(sum(one() is not None for one in made))
        small = cut_block(*arguments)
        made.append(weakref.ref(small.mlp.down_proj.weight))
        return small

    monkeypatch.setattr(recovery_check, "_cut_block", counted)
    recipe = families.recipe(**CUT)
    plan = plan_of(tiny, recipe)
    list(plain_cut_logits(tiny.model, plan, families.token_ids(5, 16), 2))
    assert len(alive) == families.BLOCKS and max(alive) <= 1


@pytest.mark.parametrize("placement", ["disk"])
def test_it_works_where_blocks_are_elsewhere(model_folder, placement):
    recipe = families.recipe(**CUT, recovery__keep_better=True, calibration__source="sample")
    runs = [
        prune(load(str(model_folder), placement=where, dtype="float32", device="cpu"), recipe)
        for where in ("whole", placement)
    ]
    first, second = (run.check for run in runs)
    assert first.kept == second.kept
    assert second.plain == pytest.approx(first.plain, rel=1e-6)
    assert second.recovered == pytest.approx(first.recovered, rel=1e-6)


def ruinous(**changes):
    """What makes this model worse than the plain cut: every module learns to ignore the drift."""
    return families.recipe(
        heads__ratio=0.3,
        ffn__ratio=0.3,
        recovery__method="full",
        recovery__target="dense",
        recovery__keep_better=True,
        **changes,
    )


def test_a_recovery_that_does_harm_is_undone_and_that_is_said(tiny_model):
    tiny, said = tiny_model("llama_biased"), []
    run = prune(tiny, ruinous(), progress=said.append)
    check = run.check
    assert check.kept == "plain" and check.plain < check.recovered
    plain = prune(tiny, families.recipe(**CUT, recovery__method="none"))
    assert families.unchanged(run.pruned.model, plain.pruned.model.state_dict())
    assert (run.plan, run.widths) == (plain.plan, plain.widths)
    assert run.report.recovery_check == check
    assert check.sentence() in run.report.to_markdown()
    assert len(check.sentence()) <= 300 and "plain cut is kept" in check.sentence()
    again = type(run.report).from_json(run.report.to_json())
    assert again.recovery_check == check
    places = [place for place, step in enumerate(said) if step.check is not None]
    (place,) = places
    assert said[place].check == check
    late = [step.event for step in said[place:] if step.event is not None]
    assert [(e.block, e.kind) for e in late] == [(e.block, e.kind) for e in run.events]
    assert all(event.error_before == event.error_after for event in late)


def test_a_recovery_that_helps_is_kept(tiny_model):
    tiny = tiny_model("gpt2")
    rule = {"heads__ratio": 0.3, "ffn__ratio": 0.3, "calibration__samples": 40}
    run = prune(tiny, families.recipe(**rule, recovery__keep_better=True))
    assert run.check.kept == "recovered" and run.check.recovered <= run.check.plain
    assert run.check.windows == 10 and run.check.seq_len == 16
    alone = prune(tiny, families.recipe(**rule))
    assert alone.check is None and alone.report.recovery_check is None
    assert families.unchanged(run.pruned.model, alone.pruned.model.state_dict())
    assert run.check.sentence() in run.report.to_markdown()
    again = prune(tiny, families.recipe(**rule, recovery__keep_better=True)).check
    assert (again.recovered, again.plain) == (run.check.recovered, run.check.plain)


@pytest.mark.parametrize("changes", [{}, {"ffn__ratio": 0.3, "recovery__method": "none"}])
def test_nothing_is_checked_where_nothing_was_recovered(tiny_model, changes):
    tiny = tiny_model("llama_grouped")
    run = prune(tiny, families.recipe(**changes, recovery__keep_better=True))
    assert run.check is None
    if not changes:
        assert families.unchanged(run.pruned.model, tiny.model.state_dict())


def test_what_is_no_number_is_never_the_better_one(tiny_model):
    tiny = tiny_model("llama_grouped")
    recipe = families.recipe(**CUT)
    plan, ids = plan_of(tiny, recipe), families.token_ids(4, 16)
    broken = families.build("llama_grouped")
    broken.lm_head.weight.data[:] = float("nan")
    check = compare(tiny.model, broken, plan, ids)
    assert check.recovered is None and check.kept == "plain"
    assert "beyond measure" in check.sentence()


def test_noise_is_judged_by_what_the_dense_model_expects(tiny_model):
    """No model foretells random tokens, and one that knows nothing does so best."""
    tiny = tiny_model("llama_grouped")
    plan = plan_of(tiny, families.recipe(**CUT))
    ids = families.token_ids(40, 16)
    ignorant = families.build("llama_grouped")
    ignorant.lm_head.weight.data.zero_()
    same, other = (
        compare(tiny.model, model, plan, ids, language=False) for model in (tiny.model, ignorant)
    )
    assert same.recovered < same.plain and same.kept == "recovered"
    assert other.recovered > same.recovered
    text = compare(tiny.model, ignorant, plan, ids)
    assert text.recovered < compare(tiny.model, tiny.model, plan, ids).recovered


def test_held_out_windows_share_no_token_with_those_of_calibration(model_folder, tmp_path):
    loaded = pruning.load(str(model_folder), dtype="float32", device="cpu")
    words = [word for word, _ in sorted(loaded.tokenizer.get_vocab().items())][:150]
    text = tmp_path / "text.txt"
    # every place of the text is another pair of words
    pairs = [f"{a} {b}" for a in words[:40] for b in words[40:80]]
    text.write_text(" ".join(pairs))
    shared = (str(text), loaded.model, loaded.tokenizer, 20, 16, 3)
    used, other = (calibration_windows(*shared, held_out=count) for count in (0, 12))
    again = calibration_windows(*shared, held_out=12)
    assert other.ids.shape == (12, 16) and torch.equal(other.ids, again.ids)

    def pieces(windows):
        return {tuple(window[i : i + 4].tolist()) for window in windows.ids for i in range(13)}

    assert not pieces(used) & pieces(other)
    # a text of two windows has no others: those that share least
    short = tmp_path / "short.txt"
    short.write_text(" ".join(pairs[:16]))
    shared = (str(short), *shared[1:])
    assert calibration_windows(*shared, held_out=3).ids.shape == (3, 16)
