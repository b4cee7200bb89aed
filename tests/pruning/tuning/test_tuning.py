"""Training after the cut: what it changes, what it leaves, and that it is never in vain."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from pruning.artifacts.report import Report
from pruning.data import calibration_windows
from pruning.measure.windows import windows_for
from pruning.pipeline import prune
from pruning.presets import PRESETS, with_preset
from pruning.presets.base import cost_of
from pruning.tuning import TUNINGS, base
from pruning.tuning.training import stage
from pruning.tuning.training.trainable import norm_gains
from pruning.utils.errors import Cancelled, UsageError
from tests.helpers import families

CUT = {"heads__ratio": 0.34, "ffn__ratio": 0.3}
METHODS = ("norms", "lora", "full")
OFTEN = {"tune__epochs": 3, "calibration__samples": 16}


def recipe(method, **changes):
    return families.recipe(**CUT, **{"tune__method": method, **changes})


def divergence(dense, model, ids):
    """Mean over all tokens, by torch alone."""
    with torch.no_grad():
        wanted, found = (families.logits(side, ids).double() for side in (dense, model))
    apart = functional.kl_div(
        found.log_softmax(-1), wanted.log_softmax(-1), reduction="sum", log_target=True
    )
    return apart.item() / ids.numel()


def test_the_loss_is_the_divergence_from_the_dense_model(tiny_model):
    tiny = tiny_model("llama_grouped")
    wanted = recipe("norms", tune__batch=12, tune__keep_better=True)
    plain, run = prune(tiny, recipe("none")), prune(tiny, wanted)
    found, ids = run.report.tuning, windows_for(tiny, wanted).ids
    (point,) = found.curve  # one batch of all windows: before anything has changed
    assert point.loss == pytest.approx(divergence(tiny.model, plain.pruned.model, ids), rel=1e-5)
    assert (point.step, point.steps, point.tokens) == (1, 1, 12 * 16)
    held = calibration_windows("random", tiny.model, None, 12, 16, 0, held_out=4).ids
    for model, said in ((plain.pruned.model, found.untuned), (run.pruned.model, found.tuned)):
        assert said == pytest.approx(divergence(tiny.model, model, held), rel=1e-5)
    assert found.tuned < found.untuned and found.kept == "tuned" and found.held_out == 4
    assert (found.method, found.windows, found.tokens) == ("norms", 12, 12 * 16)


def test_a_step_is_that_of_torch(tiny_model):
    """The first step of AdamW on the gains, by hand."""
    tiny = tiny_model("llama_grouped")
    wanted = recipe("norms", tune__batch=12, tune__learning_rate=1e-3, tune__keep_better=False)
    model, ids = prune(tiny, recipe("none")).pruned.model, windows_for(tiny, wanted).ids
    gains = [
        f"model.layers.{i}.{name}.weight"
        for i in range(families.BLOCKS)
        for name in ("input_layernorm", "post_attention_layernorm")
    ] + ["model.norm.weight"]
    for path in gains:
        owner = model.get_submodule(path.removesuffix(".weight"))
        owner.weight = torch.nn.Parameter(owner.weight.clone())
    with torch.no_grad():
        dense = families.logits(tiny.model, ids).log_softmax(-1)
    found = families.logits(model, ids).log_softmax(-1)
    loss = functional.kl_div(found, dense, reduction="none", log_target=True).sum(-1).mean()
    leaves = [model.get_parameter(path) for path in gains]
    loss.backward()
    torch.nn.utils.clip_grad_norm_(leaves, 1.0)
    for leaf in leaves:  # at a rate relative to the size of what is trained
        size = leaf.detach().square().mean().sqrt().item()
        torch.optim.AdamW([leaf], lr=1e-3 * size, weight_decay=0).step()
    tuned = prune(tiny, wanted).pruned.model
    assert sorted(norm_gains(tuned)) == sorted(gains)
    for path, leaf in zip(gains, leaves, strict=True):
        torch.testing.assert_close(tuned.get_parameter(path), leaf.detach(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["llama_biased", "gpt2", "qwen3", "gemma2", "bloom"])
def test_it_comes_closer_and_changes_only_what_it_says(tiny_model, family, method):
    tiny = tiny_model(family)
    before = families.snapshot(tiny.model)
    rule = {**OFTEN, "tune__keep_better": False}
    plain = prune(tiny, recipe("none", calibration__samples=16)).pruned.model
    run = prune(tiny, recipe(method, **rule))
    tuned, ids = run.pruned.model, windows_for(tiny, recipe(method, **rule)).ids
    assert divergence(tiny.model, tuned, ids) < 0.97 * divergence(tiny.model, plain, ids)
    assert families.unchanged(tiny.model, before)
    assert [type(m) for m in tuned.modules()] == [type(m) for m in plain.modules()]
    was, now = dict(plain.named_parameters()), dict(tuned.named_parameters())
    assert was.keys() == now.keys()
    changed = {name for name in was if not torch.equal(was[name], now[name])}
    inside = {id(p) for p in tiny.adapter.blocks(tuned).parameters()}
    if method == "norms":
        assert changed <= set(norm_gains(tuned)) and len(changed) >= families.BLOCKS
    else:
        outside = {name for name in changed if id(now[name]) not in inside}
        assert outside <= set(norm_gains(tuned))
    if method == "lora":
        for name in changed:
            assert torch.linalg.matrix_rank(now[name] - was[name], atol=1e-6) <= 16
    # the embedding is the dense model's own, tied where it was
    assert tuned.get_input_embeddings().weight is tiny.model.get_input_embeddings().weight
    tied = tiny.model.get_output_embeddings().weight is tiny.model.get_input_embeddings().weight
    assert tied == (tuned.get_output_embeddings().weight is tuned.get_input_embeddings().weight)
    assert not any(p.requires_grad for p in (*tuned.parameters(), *tiny.model.parameters()))
    found = run.report.tuning
    assert (
        found.parameters
        == sum(now[name].numel() for name in (norm_gains(tuned) if method == "norms" else ()))
        or method != "norms"
    )


def test_experts_are_trained_as_well(tiny_model):
    tiny = tiny_model("mixtral")
    plain = prune(tiny, recipe("none")).pruned.model
    tuned = prune(tiny, recipe("full", tune__epochs=2, tune__keep_better=False)).pruned.model
    experts = "model.layers.0.mlp.experts.down_proj"
    assert not torch.equal(tuned.get_parameter(experts), plain.get_parameter(experts))


def test_the_same_seed_gives_the_same_tensors(tiny_model):
    tiny = tiny_model("gpt2")
    runs = [prune(tiny, recipe("lora", seed=seed)).pruned for seed in (0, 0, 1)]
    first, again, other = (families.snapshot(run.model) for run in runs)
    assert families.unchanged(runs[1].model, first)
    assert runs[0].identity == runs[1].identity != runs[2].identity
    assert not all(torch.equal(first[name], other[name]) for name in first if "attn" in name)


@pytest.mark.parametrize("method", ["norms", "lora"])
def test_it_goes_on_where_it_was_ended(tiny_model, method, monkeypatch):
    tiny = tiny_model("llama_grouped")
    wanted = recipe(method, seed=5, **OFTEN)
    whole = prune(tiny, wanted)
    seen = []

    def stop_late():
        return bool(seen) and seen[-1].step == 9

    def watch(step):
        seen.extend([step.tuning] if step.tuning else [])

    with pytest.raises(Cancelled):
        prune(tiny, wanted, progress=watch, should_cancel=stop_late)
    steps, one = [], stage.Loop._step
    monkeypatch.setattr(stage.Loop, "_step", lambda *a: (steps.append(1), one(*a)))
    prune(tiny, recipe(method, seed=5, tune__epochs=4, calibration__samples=16))  # another training
    assert len(steps) == 32
    steps.clear()
    again = prune(tiny, wanted)
    assert len(steps) == 24 - 9
    assert families.unchanged(again.pruned.model, families.snapshot(whole.pruned.model))
    assert again.report.tuning.curve == whole.report.tuning.curve
    steps.clear()
    prune(tiny, wanted)
    assert len(steps) == 24  # nothing is left of a training that has ended


def test_what_is_kept_on_the_way_is_whole_and_needs_no_pickle(tiny_model, monkeypatch):
    tiny, kept = tiny_model("llama_grouped"), []
    write = stage.StateFile.write

    def watched(file, *arguments):
        write(file, *arguments)
        kept.append(file.path.name)
        assert file.read()[0] == arguments[0]
        file.path.write_bytes(file.path.read_bytes()[:-9])
        assert file.read() is None  # a damaged one is no beginning

    monkeypatch.setattr(stage.StateFile, "write", watched)
    monkeypatch.setattr(stage.StateFile, "due", property(lambda file: True))
    prune(tiny, recipe("norms"))
    assert kept == 6 * ["state.safetensors"]


def test_a_tuning_that_does_harm_is_undone_and_that_is_said(tiny_model):
    tiny = tiny_model("llama_biased")
    plain = prune(tiny, recipe("none")).pruned
    run = prune(tiny, recipe("full", tune__learning_rate=0.5))
    found = run.report.tuning
    assert found.kept == "untuned" and found.untuned < found.tuned
    assert families.unchanged(run.pruned.model, families.snapshot(plain.model))
    assert run.pruned.identity == plain.identity
    assert "untuned model is kept" in found.sentence() and len(found.sentence()) <= 300
    assert found.sentence() in run.report.to_markdown()
    assert Report.from_json(run.report.to_json()).tuning == found


def test_a_loss_that_is_no_number_ends_it(tiny_model, monkeypatch):
    tiny = tiny_model("llama_biased")
    monkeypatch.setattr(stage, "divergences", lambda wanted, found: found.sum(-1) / 0)
    run = prune(tiny, recipe("norms", tune__keep_better=False))
    assert run.report.tuning.kept == "untuned" and run.report.tuning.curve == ()
    plain = prune(tiny, recipe("none")).pruned.model
    assert families.unchanged(run.pruned.model, families.snapshot(plain))


def test_half_precision_is_trained_in_float32_and_saved_as_it_was(tiny_model, tmp_path):
    import pruning
    from pruning.checkpoint import save

    tiny = tiny_model("llama_grouped", dtype=torch.bfloat16)
    run = prune(tiny, recipe("full", tune__learning_rate=3e-4, **OFTEN))
    assert run.report.tuning.kept == "tuned"
    assert {p.dtype for p in run.pruned.model.parameters()} == {torch.bfloat16}
    folder = save(run, tmp_path / "tuned")
    again = pruning.load(str(folder), device="cpu").model
    ids = families.token_ids()
    assert torch.equal(families.logits(again, ids), families.logits(run.pruned.model, ids))
    card = (folder / "README.md").read_text()
    assert "Nothing was trained" not in card and run.report.tuning.sentence() in card
    untuned = save(prune(tiny, recipe("none")), tmp_path / "untuned")
    assert "Nothing was trained" in (untuned / "README.md").read_text()


def test_no_preset_trains_and_what_does_is_called_end_to_end():
    assert [entry.name for entry in TUNINGS][0] == "none"
    for entry in PRESETS:
        chosen = with_preset(recipe("lora"), entry.name)
        assert chosen.tune.method == "none" and cost_of(chosen) != "end to end"
    assert {cost_of(recipe(method)) for method in METHODS} == {"end to end"}


@pytest.mark.parametrize(
    ("family", "method", "said"),
    [("mixtral", "lora", "choose norms or full"), ("llama_grouped", "lora", "headroom[tune]")],
)
def test_what_cannot_work_is_refused_before_any_work(tiny_model, family, method, said, monkeypatch):
    if said == "headroom[tune]":
        monkeypatch.setattr(base, "find_spec", lambda package: None)
    seen = []
    with pytest.raises(UsageError, match="Tuning by LoRA") as refused:
        prune(tiny_model(family), recipe(method), progress=seen.append)
    assert said in str(refused.value) and len(str(refused.value)) <= 300 and not seen


def test_blocks_that_wait_elsewhere_are_refused(model_folder):
    from pruning.models.loading import load
    from pruning.preflight import preflight

    wanted = recipe("norms").changed(model={"source": str(model_folder)})
    for attempt in (
        lambda: preflight(wanted, placement="disk", device="cpu"),
        lambda: prune(load(str(model_folder), placement="disk", device="cpu"), wanted),
    ):
        with pytest.raises(UsageError, match="--placement whole"):
            attempt()
    assert "tuning norms, 1 x" in preflight(wanted, device="cpu").passes()


def test_the_command_line_asks_for_it():
    from pruning.cli.main import build_parser
    from pruning.cli.recipe import recipe_from

    line = ["prune", "demo", "--out", "out", "--tune", "norms", "--tune-epochs", "3"]
    found = recipe_from(build_parser().parse_args([*line, "--preset", "best"])).tune
    assert (found.method, found.epochs) == ("norms", 3)
