"""What if under the mouse, on the real model: what a click shows is what pruning would do."""

from __future__ import annotations

import csv

import pytest
import torch

from pruning.artifacts.ablation import SENTENCE
from tests.helpers import families, hand_plans
from tests.helpers.chart_steps import click_mark
from tests.helpers.steps import at_rest, download, expect


def pruned_probabilities(block: int, heads: list[int]) -> dict[str, tuple[float, float]]:
    """What follows the sentence by the embedded model and by one that has really lost ``heads``,
    nothing repaired; plain forward passes."""
    from pruning.models.loading import load
    from pruning.surgery.apply import apply

    dense = load("demo", device="cpu")
    plan = hand_plans.plan_by_hand(dense.shape, {block: heads}, {})
    recipe, text = families.recipe(**families.PLAIN), families.windows(dense, 1, 8)
    pruned = apply(dense.model, plan, recipe, text).model
    ids = dense.tokenizer(SENTENCE, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        sides = [model(ids).logits[0, -1].softmax(-1) for model in (dense.model, pruned)]
    return {
        dense.tokenizer.decode([number]): (sides[0][number].item(), sides[1][number].item())
        for number in sides[0].topk(20).indices.tolist()
    }


def test_a_click_shows_what_pruning_without_recovery_does(visit, tmp_path):
    page = visit().open("what_if")
    expect(page.get_by_text("Nothing is off")).to_be_visible()
    page.get_by_text("A click takes all heads of a key/value group").click()
    at_rest(page)
    click_mark(page, "what_if-map", "head:12:4")
    expect(page.get_by_text("heads 12.3, 12.4, 12.5")).to_be_visible()
    load = page.get_by_role("button", name="Load and try")
    table = page.get_by_role("button", name="next-token.csv")
    expect(load.or_(table).first).to_be_visible()
    if load.count():  # no other test has loaded it
        load.click()
    expect(table).to_be_visible()
    with open(download(page, "next-token.csv", tmp_path), newline="") as file:
        shown = {
            row["token"]: (float(row["dense"]), float(row["switched_off"]))
            for row in csv.DictReader(file)
        }
    truth = pruned_probabilities(12, [3, 4, 5])
    assert len(shown) >= 8 and len(shown.keys() & truth.keys()) >= 8
    for token in shown.keys() & truth.keys():
        assert shown[token] == pytest.approx(truth[token], abs=1e-5)
    page.get_by_role("button", name="Put into the recipe").click()
    expect(page.get_by_role("button", name="In the recipe")).to_be_disabled()
    expect(page.get_by_text("The recipe now takes heads 3, 4, 5 of block 12")).to_be_visible()
