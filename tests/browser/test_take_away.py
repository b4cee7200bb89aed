"""After a run: the comparison stays, the report opens offline, the model is saved in each form."""

from __future__ import annotations

import json
import re
import shutil
import zipfile

import pytest

import pruning
from tests.helpers.chart_steps import click_mark, until
from tests.helpers.steps import at_rest, download, expect, fill, go, says

FORMS = {
    "Compact": ("compact", "model.safetensors"),
    "Uniform": ("uniform", "model.safetensors"),
    "Padded": ("padded", "model.safetensors"),
    "GGUF": ("gguf", "*.gguf"),
}


@pytest.fixture
def compare(visit, pruned):
    page = visit().open(f"compare?{pruned}")
    expect(page.get_by_role("heading", name="Export")).to_be_visible()
    at_rest(page)
    return page


def test_comparisons_stay_and_the_report_opens_offline(compare, browser, tmp_path):
    fill(compare, "Windows", "2")
    fill(compare, "Window, tokens", "32")
    compare.get_by_role("button", name="Evaluate", exact=True).click()
    expect(compare.get_by_text("tokenised once").first).to_be_visible()
    expect(compare.get_by_text("Pruned ÷ dense").first).to_be_visible()
    fill(compare, "New tokens", "4")
    compare.get_by_role("button", name="Generate", exact=True).click()
    expect(compare.get_by_text("4 tokens in")).to_have_count(2)
    compare.reload()
    expect(compare.get_by_text("tokenised once").first).to_be_visible()
    expect(compare.get_by_text("4 tokens in")).to_have_count(2)

    report = download(compare, "Report, HTML", tmp_path)
    context = browser.new_context(offline=True)
    page, asked, errors = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(report.as_uri())
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(r"pruned\s*$"))
    for name in ("Size", "Perplexity", "The same prompt", "What was kept", "Block by block"):
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
    drawings = page.locator("svg")
    expect(drawings).to_have_count(3)
    assert all(drawings.nth(n).bounding_box()["height"] > 50 for n in range(3))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert asked == [report.as_uri()] and not errors
    context.close()


def test_the_model_is_saved_in_each_form(compare, tmp_path):
    for title, (form, weights) in FORMS.items():
        out = tmp_path / form
        compare.locator(".st-key-compare-form").get_by_text(title, exact=True).click()
        if form == "gguf":  # the page grows by one control, which moves the folder's field
            expect(compare.get_by_text("Quantization", exact=True)).to_be_visible()
        fill(compare, "Folder on the server", str(out))
        compare.get_by_role("button", name="Save", exact=True).click()
        expect(compare.get_by_text(f"Saved to {out}")).to_be_visible()
        assert (out / "recipe.yaml").is_file() and (out / "README.md").is_file(), title
        (file,) = out.glob(weights)
        assert file.stat().st_size > 100_000_000
        if form != "gguf":
            config = json.loads((out / "config.json").read_text())
            assert config["hidden_size"] == 576
        shutil.rmtree(out)


def test_a_mark_of_the_map_opens_its_block_and_head(compare):
    click_mark(compare, "compare-heads", "block:7:4")
    expect(compare.get_by_text("Now open: block 7.")).to_be_visible()
    go(compare, "Heads")
    says(compare, "Block", "7")
    until(compare, "heads-overview", "fig.named.selected.x[0] === 7")


def test_the_model_is_downloaded_and_loads(compare, tmp_path):
    compare.get_by_role("button", name="Prepare download", exact=True).click()
    link = compare.get_by_role("link", name="Download demo-pruned-compact.zip")
    expect(link).to_be_visible()
    with compare.context.expect_page():
        with compare.expect_download() as waiting:
            link.click()
    waiting.value.save_as(tmp_path / "model.zip")
    assert waiting.value.suggested_filename == "demo-pruned-compact.zip"
    expect(compare.get_by_role("heading", name="Compare", exact=True, level=1)).to_be_visible()
    with zipfile.ZipFile(tmp_path / "model.zip") as packed:
        assert not [name for name in packed.namelist() if name.endswith((".bin", ".pt", ".pkl"))]
        packed.extractall(tmp_path)
    loaded = pruning.load(str(tmp_path / "demo-pruned-compact"), device="cpu")
    # the fixture's recipe: a quarter of 1536 channels is gone in every block
    widths = {block.ffn.units for block in loaded.adapter.model_shape(loaded.model).blocks}
    assert widths == {1152}


def test_a_folder_outside_is_refused_in_one_sentence(compare):
    fill(compare, "Folder on the server", "/etc/headroom")
    compare.get_by_role("button", name="Save", exact=True).click()
    expect(compare.get_by_test_id("stAlert").get_by_text("outside the folders")).to_be_visible()
