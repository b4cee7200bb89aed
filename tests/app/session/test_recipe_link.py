"""The recipe in the address and as a file."""

from __future__ import annotations

import re

import pytest

from app.session import recipe_link
from pruning.artifacts.recipe import Recipe
from pruning.utils.errors import UsageError
from tests.helpers.recipes import plain_recipe
from tests.helpers.stand_ins import at_address, draft_of, labelled


def test_a_recipe_survives_the_address():
    for recipe in (
        Recipe(),
        plain_recipe().changed(by_hand={3: {"heads": 0.5}}, allocation="by_hand"),
        plain_recipe().changed(heads={"threshold": 0.1}, model={"source": "a/b"}),
    ):
        text = recipe_link.encode(recipe)
        assert recipe_link.decode(text) == recipe and re.fullmatch(r"[\w-]+", text)
        assert len(text) < 400


@pytest.mark.parametrize(
    "text", ["", "x", "a" * 9000, "eJwrLQIA", recipe_link.encode(Recipe())[:-3]]
)
def test_a_damaged_address_is_one_sentence(text):
    with pytest.raises(UsageError) as caught:
        recipe_link.decode(text)
    assert "\n" not in str(caught.value)


def test_the_address_restores_the_draft_and_follows_it(engine):
    wanted = plain_recipe().changed(ffn={"ratio": 0.45}, seed=7)
    at = at_address(recipe=recipe_link.encode(wanted))
    assert draft_of(at) == wanted
    at.switch_page("views/prune/page.py").run()
    slider = labelled(at.slider, "FFN channels to remove")
    assert slider.value == 0.45
    slider.set_value(0.3).run()
    at.run()
    given = at.query_params["recipe"]
    given = given[0] if isinstance(given, list) else given
    assert recipe_link.decode(given).ffn.ratio == 0.3


def test_an_address_may_not_name_files_outside_the_roots(engine, monkeypatch, tmp_path):
    monkeypatch.setenv("HEADROOM_ROOTS", str(tmp_path))
    at = at_address(recipe=recipe_link.encode(Recipe.parse({"model": {"source": "/etc"}})))
    at.switch_page("views/prune/page.py").run()
    assert draft_of(at).model.source == "demo"


def test_the_recipe_file_reads_back(visit, engine):
    engine.submit(finish=True)
    at = visit("compare")
    assert not at.exception
    assert Recipe.from_yaml(engine.recipe.to_yaml()) == engine.recipe
