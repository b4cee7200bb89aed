"""What is broken on disk is one clear line in the app, with the real engine behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

import pruning
from app.session import visitor_jobs
from pruning.pipeline import prune
from tests.helpers import families
from tests.helpers.stand_ins import OWNER, button, labelled, wait_for


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The weights of a saved model, in its folder; every test restores them."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HEADROOM_CACHE", str(tmp_path_factory.mktemp("cache")))
    folder = tmp_path_factory.mktemp("saved") / "model"
    run = prune(families.loaded("llama_grouped"), families.recipe(ffn__ratio=0.4))
    pruning.save(run, folder)
    yield folder / "model.safetensors"
    patch.undo()


def cut_short(weights):
    weights.write_bytes(weights.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "word"), [(cut_short, "damaged"), (Path.unlink, "no safetensors weights")]
)
def test_a_broken_folder_is_one_line(visit, weights, monkeypatch, damage, word):
    monkeypatch.setenv("HEADROOM_ROOTS", str(weights.parent.parent))
    whole = weights.read_bytes()
    at = visit("model")
    at.button_group[0].set_value("folder").run()
    labelled(at.text_input, "Folder on the server").set_value(str(weights.parent)).run()
    try:
        damage(weights)
        button(at, "Load").click().run()
        wait_for(lambda: not visitor_jobs.manager().of(OWNER)[-1].active)
        at.run()
    finally:
        weights.write_bytes(whole)
    (error,) = at.error
    assert word in error.value and "model.safetensors" in error.value
    assert "\n" not in error.value and not at.exception


def test_a_recipe_from_the_future_is_one_line(visit):
    at = visit("prune")
    upload = labelled(at.file_uploader, "Upload a recipe")
    upload.upload("r.yaml", b"version: 99\n").run()
    (error,) = at.error
    assert "r.yaml" in error.value and "version 99" in error.value
    assert "\n" not in error.value and not at.exception


ALIASES = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "content",
    [ALIASES, "seed: " + "[" * 3000, "seed: " + "9" * 5000, b"\xff\xfe", "seed: true", "# empty"],
)
def test_an_odd_recipe_is_one_line_at_once(visit, content):
    at = visit("prune")
    upload = labelled(at.file_uploader, "Upload a recipe")
    upload.upload("odd.yaml", content if isinstance(content, bytes) else content.encode()).run()
    (error,) = at.error
    assert "odd.yaml" in error.value and len(error.value) <= 300
    assert "\n" not in error.value and not at.exception
