"""The Heads page under the mouse: τ, picks that show everywhere, marks."""

from __future__ import annotations

import csv
import json
from xml.etree import ElementTree

import networkx
import pytest
import yaml

from app.session import recipe_link
from tests.helpers.chart_steps import click_mark, traces_now, until
from tests.helpers.steps import (
    asks_for,
    at_rest,
    download,
    expect,
    go,
    poll,
    press,
    query_now,
    repeat,
    says,
)


@pytest.fixture
def heads(visit):
    return visit().open("heads")


SVG = "{http://www.w3.org/2000/svg}"


def places(page) -> dict[str, tuple]:
    """Where each head stands in the graph, once the page is at rest."""
    at_rest(page)
    found = traces_now(page, "heads-graph")
    return {
        ident: (x, y)
        for name in ("stays", "goes")
        if name in found
        for ident, x, y in zip(*(found[name][part] for part in ("ids", "x", "y")), strict=True)
    }


def test_tau_moves_edges_and_no_head(heads):
    before, edges = places(heads), sum(traces_now(heads, "heads-overview")["edges"]["y"])
    press(heads, "τ, nats (natural log)", "PageUp")
    more = "fig.named.edges.y.reduce((a, b) => a + b) > arg"
    until(heads, "heads-overview", more, edges)
    assert places(heads) == before and len(before) == 9
    press(heads, "τ, nats (natural log)", "Home")
    until(heads, "heads-overview", "fig.named.edges.y.every(n => n === 0)")
    assert places(heads) == before


SELECTED = "fig.named.selected.x[0] === arg[0] && fig.named.selected.y[0] === arg[1]"
FRAMED = "fig.layout.shapes[0].y0 === arg - 0.5"
RINGED = """['stays', 'goes'].some(name => {
  const at = fig.named[name]?.customdata.indexOf(arg) ?? -1;
  return at >= 0 && fig.named[name].x[at] === fig.named.selected.x[0] })"""


def picked(page, block: int, head: int) -> None:
    """Wait until every view of the page shows this head of this block."""
    until(page, "heads-overview", SELECTED, [block, head])
    until(page, "heads-map", FRAMED, head)
    until(page, "heads-graph", RINGED, f"head:{head}")
    page.wait_for_function(
        "head => document.querySelector('.st-key-heads-head input').value === `Head ${head}`",
        arg=head,
    )
    says(page, "Block", str(block))


def test_a_pick_in_any_view_shows_in_all(heads):
    click_mark(heads, "heads-graph", "head:7")
    picked(heads, 0, 7)
    click_mark(heads, "heads-map", "pair:2:5")
    picked(heads, 0, 2)
    click_mark(heads, "heads-overview", "block:12:4")
    picked(heads, 12, 4)
    asks_for(heads, "block", "12")
    click_mark(heads, "heads-sheet", "block:20")
    picked(heads, 20, 4)


def test_a_block_opens_everywhere(heads):
    click_mark(heads, "heads-overview", "block:9:4")
    until(heads, "heads-overview", "fig.named.selected.x[0] === 9")
    go(heads, "Activations")
    expect(heads.get_by_role("heading", name="Block 9", exact=True)).to_be_visible()
    click_mark(heads, "activations-blocks", "block:14")
    expect(heads.get_by_role("heading", name="Block 14", exact=True)).to_be_visible()
    go(heads, "Heads")
    until(heads, "heads-overview", "fig.named.selected.x[0] === 14")
    says(heads, "Block", "14")


def test_a_bar_on_prune_opens_its_block(heads):
    go(heads, "Prune")
    until(heads, "prune-widths", "drawn._fullData.length >= 2")
    now_open = heads.get_by_text("Now open: block 7.")
    # the page may drop a click that comes in the middle of its redraw
    repeat(heads, lambda: click_mark(heads, "prune-widths", "block:7"), now_open.is_visible, 30)
    go(heads, "Heads")
    until(heads, "heads-overview", "fig.named.selected.x[0] === 7")
    says(heads, "Block", "7")


def test_attention_maps_follow_the_pick_and_pick(heads):
    heads.get_by_role("button", name="Load and look").click()
    click_mark(heads, "heads-mosaic", "head:3")
    expect(heads.get_by_text("Head 3 of block 0, word piece by")).to_be_visible()
    picked(heads, 0, 3)
    click_mark(heads, "heads-graph", "head:6")
    expect(heads.get_by_text("Head 6 of block 0, word piece by")).to_be_visible()
    until(heads, "heads-overview", SELECTED, [0, 6])


def test_numbers_and_graphs_can_be_taken_away(heads, tmp_path):
    edges = sum(traces_now(heads, "heads-overview")["edges"]["y"])
    press(heads, "τ, nats (natural log)", "PageUp")
    until(heads, "heads-overview", "fig.named.edges.y.reduce((a, b) => a + b) > arg", edges)
    at_rest(heads)
    drawn = traces_now(heads, "heads-overview")
    gone = {ident for name in ("✕ alike", "○ weak") for ident in drawn[name]["ids"]}
    with open(download(heads, "heads.csv", tmp_path), encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 270
    assert {f"block:{r['block']}:{r['head']}" for r in rows if r["kept"] == "False"} == gone
    with open(download(heads, "divergence.csv", tmp_path), encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 36
    graph = networkx.read_graphml(download(heads, "block-0.graphml", tmp_path), node_type=int)
    leaves = {f"block:0:{head}" for head, goes in graph.nodes(data="decision") if goes == "goes"}
    assert leaves == {ident for ident in gone if ident.startswith("block:0:")}
    with open(download(heads, "all-blocks.json", tmp_path), encoding="utf-8") as file:
        whole = networkx.node_link_graph(json.load(file), edges="edges")
    assert len(whole) == 270 and whole.number_of_edges() == sum(drawn["edges"]["y"])


def test_a_chart_is_saved_as_a_picture_by_the_keyboard(visit, tmp_path):
    page = visit(color_scheme="dark").open("heads")

    def save(key: str, label: str):
        # a chart that is drawn again has, for a moment, the button of before as well
        page.wait_for_function(
            """([place, label]) => {
              const buttons = [...document.querySelectorAll(place)];
              return buttons.length == 1 && buttons[0].ariaLabel == label }""",
            arg=[f".st-key-{key} .modebar-btn", label],
        )
        files = []
        page.once("download", lambda file: files.append(file))
        press_enter = page.locator(f".st-key-{key} .modebar-btn").press
        repeat(page, lambda: press_enter("Enter"), lambda: files, seconds=60)
        path = tmp_path / files[0].suggested_filename
        files[0].save_as(path)
        return path

    drawing = save("heads-graph", "Download plot")
    assert drawing.name == "headroom-graph.svg"
    root = ElementTree.parse(drawing).getroot()
    assert root.tag.endswith("svg") and {"0", "8"} <= {t.text for t in root.iter(f"{SVG}text")}
    # opaque: light words would be lost on white paper
    assert "rgb(18, 24, 28)" in drawing.read_text(encoding="utf-8")
    page.get_by_text("PNG", exact=True).click()
    page.wait_for_selector(".st-key-heads-sheet .main-svg")
    picture = save("heads-sheet", "Download plot as a PNG")
    assert picture.name == "headroom-sheet.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_marks_by_click_are_in_the_recipe_and_in_the_address(heads, visit, tmp_path):
    heads.locator(".st-key-heads-mode").get_by_text("Mark drop", exact=True).click()
    click_mark(heads, "heads-graph", "head:4")
    expect(heads.get_by_text("Marked by hand: block 0 drops 4")).to_be_visible()
    heads.locator(".st-key-heads-mode").get_by_text("Mark keep", exact=True).click()
    click_mark(heads, "heads-overview", "block:2:0")
    expect(heads.get_by_text("block 0 drops 4; block 2 keeps 0")).to_be_visible()
    marked = "fig.named['▣ marked keep'].customdata.join() === arg"
    until(heads, "heads-overview", marked, "block:2:0")
    go(heads, "Prune")
    heads.get_by_text("Recipe file", exact=True).click()
    recipe = yaml.safe_load(download(heads, "Download recipe", tmp_path).read_text())
    assert recipe["marks"] == {0: {"keep": [], "drop": [4]}, 2: {"keep": [0], "drop": []}}

    def link() -> str | None:
        """The address' recipe, once it has both marks."""
        text = query_now(heads).get("recipe")
        return text if text and recipe_link.decode(text).marks.keys() == {0, 2} else None

    page = visit().open(f"heads?recipe={poll(heads, link)}")
    expect(page.get_by_text("block 0 drops 4; block 2 keeps 0")).to_be_visible()
