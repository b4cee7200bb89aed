"""The Compare page in each of its states, without a browser."""

from __future__ import annotations

import json
import threading

from app.components import recipe_summary
from app.components.token_marks import look, passage_html
from app.jobs import compare_tasks, tasks
from app.session import recorded, visitor_jobs
from app.views.compare.evaluation import rate
from app.views.compare.tokens import before_token
from pruning.checkpoint.forms import FormOptions
from tests.helpers.finished_jobs import LOSSES, Passage, Rate, Score, add, add_run
from tests.helpers.recipes import plain_recipe
from tests.helpers.stand_ins import OWNER, button, charts, draft_of, labelled, wait_for, words


def test_compare_before_any_run(visit, monkeypatch):
    monkeypatch.setattr(recorded, "job", lambda: None)
    at = visit("compare")
    assert not at.exception
    assert "Nothing to compare yet" in words(at) and not charts(at)


def test_compare_while_the_run_is_at_work(visit, engine):
    engine.submit()
    assert "still at work" in words(visit("compare"))


def test_compare_after_a_run(visit, engine, monkeypatch):
    engine.submit(finish=True)
    scores = compare_tasks.Pair(Score(50.0), Score(60.0))
    monkeypatch.setattr(compare_tasks, "perplexities", lambda *_: lambda p, c: scores)
    at = visit("compare")
    assert not at.exception and len(charts(at)) == 2
    assert at.metric[0].value != "134.5 M"
    kept, gone = json.loads(charts(at)[0].spec)["data"]
    assert len(kept["x"]) + len(gone["x"]) == 270
    assert any("like head" in text for text in gone["hovertext"])
    button(at, "Evaluate").click().run()
    wait_for(lambda: visitor_jobs.manager().of(OWNER, "perplexity")[-1].status == "done")
    at.run()
    assert "60.00" in [metric.value for metric in at.metric]
    assert "tokenised once" in words(at)


def test_compare_offers_every_form(visit, engine, monkeypatch, tmp_path):
    """Each with one line; what is chosen is what the work gets."""
    monkeypatch.setenv("HEADROOM_ROOTS", str(tmp_path))
    asked = []

    def saving(_run, out, form, options, found):
        asked.append((out, form, options, found))
        return lambda progress, should_cancel: (out, ("A bias was added.",))

    monkeypatch.setattr(compare_tasks, "saving", saving)
    engine.submit(finish=True)
    at = visit("compare")
    choice = labelled(at.radio, "The pruned model as")
    assert choice.options == ["Compact", "Uniform", "Padded", "GGUF"]
    assert len(choice.proto.captions) == 4 and all(choice.proto.captions)
    choice.set_value("gguf").run()
    labelled(at.text_input, "Folder on the server").set_value(str(tmp_path / "out")).run()
    button(at, "Save").click().run()
    assert asked == [(tmp_path / "out", "gguf", FormOptions(), None)]
    assert "With a training script" not in [each.label for each in at.toggle]
    wait_for(lambda: not visitor_jobs.manager().of(OWNER)[-1].active)
    at.run()
    assert f"Saved to {tmp_path / 'out'}." in words(at) and not at.exception
    assert "A bias was added." in words(at)
    labelled(at.text_input, "Folder on the server").set_value("/etc/out").run()
    button(at, "Save").click().run()
    assert len(asked) == 1 and "outside the folders" in at.error[0].value


def test_every_run_stays_though_weights_are_unloaded(visit, engine):
    jobs = [add_run(ratio) for ratio in (0.1, 0.2, 0.3, 0.4, 0.5)]
    add("estimate", None, None)  # the queue tidies up after each job
    assert [tasks.has_models(job.result) for job in jobs] == [False, False, True, True, True]
    add("perplexity", compare_tasks.Pair(Score(50.0), Score(60.0)), (jobs[0].id,))
    at = visit("compare")
    assert not at.exception
    table = at.dataframe[0].value
    assert list(table["run"]) == ["#5", "#4", "#3", "#2", "#1"]
    assert table["perplexity"].tolist()[-1] == 60.0 and table["perplexity"].isna().sum() == 4
    labelled(at.selectbox, "Run").select(jobs[0].id).run()
    assert not at.exception and "60.00" in [metric.value for metric in at.metric]
    assert button(at, "Evaluate").disabled and button(at, "Generate").disabled
    assert "Weights unloaded" in words(at)


def test_perplexities_of_all_runs_on_one_protocol(visit, engine, monkeypatch):
    jobs = [add_run(ratio) for ratio in (0.1, 0.4)]
    scores = compare_tasks.Pair(Score(50.0), Score(61.0))
    rates = compare_tasks.Pair(Rate(10.0, 5.0), Rate(12.0, 6.0))
    monkeypatch.setattr(compare_tasks, "perplexities", lambda *_: lambda p, c: scores)
    monkeypatch.setattr(compare_tasks, "speeds", lambda *_: lambda p, c: rates)
    at = visit("compare")
    button(at, "Evaluate and time all").click().run()
    wait_for(lambda: all(not job.active for job in visitor_jobs.manager().of(OWNER)))
    add("perplexity", compare_tasks.Pair(Score(20.0, "ptb"), Score(30.0, "ptb")), (jobs[0].id,))
    at.run()
    assert not at.exception
    table = next(d.value for d in at.dataframe if "÷ dense" in d.value)
    assert table["perplexity"].tolist() == [61.0, 61.0]
    assert table["tokens/s, decode"].tolist() == [6.0, 6.0]
    labelled(at.selectbox, "Protocol of the perplexities").select(
        Score(1.0, "ptb").protocol()
    ).run()
    table = next(d.value for d in at.dataframe if "÷ dense" in d.value)
    assert table["perplexity"].tolist()[1] == 30.0
    clouds = [json.loads(e.proto.spec)["data"] for e in at.get("plotly_chart")]
    assert sum(trace[0].get("name") == "pruned" for trace in clouds) == 2


def test_two_runs_side_by_side(visit, engine):
    first, second = add_run(0.1), add_run(0.4)
    at = visit("compare")
    assert not at.exception
    blocks = next(d.value for d in at.dataframe if "channels in common" in d.value)
    assert len(blocks) == 30 and (blocks["channels in #1"] > blocks["channels in #2"]).all()
    assert recipe_summary.differences(first.request, second.request) == [
        ("FFN, ratio", "0.1", "0.4")
    ]


def test_settings_that_differ_are_in_words():
    one = plain_recipe()
    other = one.changed(
        heads={"threshold": 0.1},
        recovery={"rescore": False},
        allocation="by_hand",
        marks={3: {"drop": [1, 2]}, 5: {"keep": [0]}},
        by_hand={4: {"heads": 0.2, "ffn": 0.5}},
    )
    assert recipe_summary.differences(one, other) == [
        ("heads, threshold", "–", "0.1"),
        ("allocation", "uniform", "by_hand"),
        ("recovery, rescore", "yes", "no"),
        ("ratios by hand", "–", "block 4 heads 20%, FFN 50%"),
        ("heads by hand", "–", "block 3 drops 1, 2; block 5 keeps 0"),
    ]
    assert not recipe_summary.differences(other, other)
    assert "3 heads marked" in recipe_summary.summary(other)


def test_runs_with_and_without_marks_stand_side_by_side(visit, engine):
    add_run(0.1)
    add_run(0.1, marks={3: {"drop": [1]}})
    at = visit("compare")
    assert not at.exception
    table = next(d.value for d in at.dataframe if "" in d.value)
    assert ["Heads by hand", "–", "block 3 drops 1"] in table.values.tolist()


def test_two_runs_name_each_protocol_once_below_the_table(visit, engine):
    first, second = add_run(0.1), add_run(0.4)
    add("perplexity", compare_tasks.Pair(Score(50.0), Score(60.0)), (first.id,))
    at = visit("compare")
    protocols = [Score(1.0).protocol(), Score(1.0, "ptb").protocol()]
    assert f"Perplexity: {protocols[0]}" in [caption.value for caption in at.caption]
    add("perplexity", compare_tasks.Pair(Score(20.0, "ptb"), Score(30.0, "ptb")), (second.id,))
    at.run()
    assert not at.exception
    table = next(d.value for d in at.dataframe if "" in d.value)
    rows = {row[""]: (row["#1"], row["#2"]) for _, row in table.iterrows()}
    assert sorted(name for name in rows if "Perplexity" in name) == ["Perplexity 1", "Perplexity 2"]
    below = next(c.value for c in at.caption if c.value.startswith("Perplexity 1"))
    order = protocols if protocols[0] in below.splitlines()[0] else protocols[::-1]
    assert [line.rstrip() for line in below.splitlines()] == [
        f"Perplexity {n}: {protocol}" for n, protocol in enumerate(order, start=1)
    ]
    by_protocol = {protocol: rows[f"Perplexity {n}"] for n, protocol in enumerate(order, start=1)}
    assert by_protocol == {protocols[0]: ("60.00", "–"), protocols[1]: ("–", "30.00")}


def test_a_marked_passage_is_escaped_and_marked_without_colour_too():
    html = passage_html(Passage().pieces, Passage().dense, Passage().pruned)
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "double" in look(4.0) and "dotted" in look(0.5) and "dashed" in look(-1.0)
    assert "solid" in look(1.5) and look(0.1) == ""


def test_the_text_before_a_token_ends_at_the_token():
    pieces = ["far ", "away ", "where\n", "the ", "tissues ", "that ", "consume ", "energy"]
    assert before_token(pieces, 7) == "…s that consume "
    assert before_token(pieces, 1) == "…far "


def test_speeds_of_slow_models_keep_a_digit():
    assert (rate(6.71), rate(99.9), rate(1234.5)) == ("6.7", "99.9", "1,234")


def test_reading_shows_the_worst_passage(visit, engine, monkeypatch):
    add_run(0.2)
    monkeypatch.setattr(compare_tasks, "losses", lambda *_: lambda p, c: LOSSES)
    at = visit("compare")
    button(at, "Read with both").click().run()
    wait_for(lambda: not visitor_jobs.manager().of(OWNER, "tokens")[-1].active)
    at.run()
    assert not at.exception
    assert next(d.value for d in at.dataframe if "rise" in d.value)["rise"].tolist() == [4.0, 0.5]
    assert "sample (test), 1 window of 3 tokens" in words(at)


def test_text_shows_while_it_is_generated(visit, engine):
    run = add_run(0.2)
    live = compare_tasks.LiveTexts()
    live.before.extend(["and", " falls"])
    job = visitor_jobs.manager().submit(
        "texts",
        "Text",
        lambda p, c: engine.gate.wait(),
        owner=OWNER,
        queue_name="other",
        request=(run.id, "Water rises ", live),
    )
    wait_for(lambda: job.status == "running")
    at = visit("compare")
    assert not at.exception
    assert [text.value for text in at.text] == ["Water rises and falls", "Water rises"]


def test_a_running_evaluation_may_show_in_two_tabs(visit, engine):
    run, hold = add_run(0.2), threading.Event()
    visitor_jobs.manager().submit(
        "perplexity",
        "Perplexity",
        lambda p, c: hold.wait(),
        owner=OWNER,
        queue_name="cpu",
        request=(run.id,),
    )
    try:
        at = visit("compare")
        assert not at.exception
        assert [item.label for item in at.button].count("Cancel") == 2
    finally:
        hold.set()


def test_a_run_of_the_session_can_be_opened_again(visit, engine):
    run = add_run(0.35)
    at = visit("compare")
    button(at, "Open recipe on Prune").click().run()
    assert draft_of(at) == run.request
