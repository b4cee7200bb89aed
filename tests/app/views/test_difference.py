"""The Difference page: what can be chosen, what is refused, what is shown."""

from __future__ import annotations

from app.jobs import difference_task
from app.jobs.difference_task import Text
from app.session import visitor_jobs
from pruning.artifacts.difference import (
    BlockDifference,
    BlockOutput,
    Difference,
    Outputs,
    TensorDifference,
)
from tests.helpers import finished_jobs
from tests.helpers.stand_ins import OWNER, button, charts, labelled, page_file, words
from tests.helpers.waiting import wait_for

FOUND = Difference(
    "dense",
    "pruned",
    "By the plan that made pruned.",
    (BlockDifference(0, (9, 6), (3, 2), (100, 80), 0.8, 0.5, None),),
    (
        TensorDifference("h.0.up.weight", 0, "ffn", (8, 4), (6, 4), (32, 24), 24, 1.0, 4.0),
        TensorDifference("h.0.down.bias", 0, "ffn", None, (4,), (0, 4)),
    ),
    Outputs("sample", 256, (BlockOutput(0.25, 0.97),), 0.125, 0.75),
)


def test_it_can_be_opened_before_anything_was_pruned(visit):
    at = visit("difference")
    assert not at.exception and "Nothing compared yet" in words(at)
    assert labelled(at.selectbox, "First").value == "demo"
    assert button(at, "Compare").disabled


def test_a_run_is_offered_with_its_dense_model(visit, monkeypatch):
    asked = []

    def comparing(first, second, text, device):
        asked.append((first, second, text))
        return lambda progress, should_cancel: FOUND

    monkeypatch.setattr(difference_task, "comparing", comparing)
    run = finished_jobs.add_run(0.25)
    at = visit("difference")
    assert [labelled(at.selectbox, side).value for side in ("First", "Second")] == [
        f"{run.id}.dense",
        f"{run.id}.pruned",
    ]
    button(at, "Compare").click().run()
    ((first, second, text),) = asked
    assert (first.which, second.which) == ("dense", "pruned") and second.run is run.result
    assert text == Text("sample", 2, 128)
    wait_for(lambda: not visitor_jobs.manager().of(OWNER, "difference")[0].active)
    at.run()
    assert not at.exception
    said = words(at)
    assert FOUND.headline() in said and FOUND.matching in said and "256 tokens" in said
    blocks, tensors = (table.value for table in at.dataframe)
    assert blocks["heads"][0] == "9 → 6" and blocks["output error"][0] == 0.25
    assert list(tensors["tensor"]) == [t.name for t in FOUND.tensors]
    assert tensors["change"][0] == 0.5 and tensors["kept"][0] == 0.75
    assert len(charts(at)) == 1
    labels = [item.label for item in at.get("download_button")]
    assert labels == ["tensors.csv", "blocks.csv", "One page, HTML", "JSON"]


def test_what_lies_outside_the_roots_is_refused(visit):
    at = visit("model")
    at.session_state["field.difference.Second"] = (
        "/etc"  # typed: no option, which a test could choose
    )
    at.switch_page(page_file("difference")).run()
    button(at, "Compare").click().run()
    (error,) = at.error
    assert "outside the folders" in error.value and not visitor_jobs.manager().of(OWNER)
