"""What a visitor does and sees, in the words of the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from app.session.state import initial_recipe
from pruning.artifacts.recipe import Recipe

# the newest drawing: an outdated one stays on the page until the script has run to its end
_CHART = """
const chart = (key) => document.querySelector(
  `.st-key-${key}:not([data-stale=true]) .js-plotly-plot`);
"""


def small_recipe(**sections: Any) -> Recipe:
    """Few tokens and no copies: seconds instead of minutes."""
    small = {
        "calibration": {"samples": 2, "seq_len": 32},
        "ffn": {"ratio": 0.25},
        "recovery": {"copies": 0},
        "blocks": {"start": 3, "end": 5},
    }
    return initial_recipe().changed(**{**small, **sections})


def long_recipe() -> Recipe:
    """A run of minutes, to be cancelled."""
    return small_recipe(
        calibration={"samples": 64, "seq_len": 32}, blocks={"start": 0, "end": None}
    )


def write_recipe(folder: Path, recipe: Recipe, name: str = "small.yaml") -> str:
    path = folder / name
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    return str(path)


def open_recipe(page, file: str) -> None:
    """Upload a recipe and wait until the server has taken it over: Run runs what it has."""
    page.get_by_text("Recipe file", exact=True).click()
    page.set_input_files("input[type=file]", file)
    page.get_by_text(f"{Path(file).name} is the recipe now.").wait_for()


def go(page, name: str) -> None:
    """Open another page by the navigation."""
    page.get_by_role("link", name=name, exact=True).first.click()
    page.get_by_role("heading", name=name, exact=True, level=1).wait_for()


def query(page) -> dict[str, str]:
    """The query of the address."""
    return dict(parse_qsl(urlsplit(page.url).query))


def slider(page, label: str):
    return page.get_by_role("slider", name=label)


def value_of(page, label: str) -> str:
    """What a slider says."""
    return slider(page, label).get_attribute("aria-valuetext")


def press(page, label: str, key: str, times: int = 1) -> None:
    """Move a slider by the keyboard."""
    slider(page, label).focus()
    for _ in range(times):
        page.keyboard.press(key)


def traces(page, key: str) -> dict[str, dict]:
    """The named traces of a chart: coordinates, ids and texts. Waits for the chart, and reads it
    in the same moment: it may be drawn anew in the next."""
    found = page.wait_for_function(
        f"""key => {{ {_CHART}
          return chart(key)?._fullLayout && chart(key)._fullData.map(t => ({{
            name: t.name, x: Array.from(t.x ?? []), y: Array.from(t.y ?? []),
            ids: Array.from(t.customdata ?? []), text: t.text}})) }}""",
        arg=key,
    ).json_value()
    return {trace["name"]: trace for trace in found if trace["name"]}


def until(page, key: str, condition: str, arg: Any = None) -> None:
    """Wait until JavaScript ``condition`` holds of the chart's figure ``fig``: its traces by name
    in ``fig.named``, its layout in ``fig.layout``; ``arg`` is what is passed."""
    page.wait_for_function(
        f"""([key, arg]) => {{ {_CHART}
          const drawn = chart(key);
          if (!drawn?._fullData) return false;
          const named = Object.fromEntries(drawn._fullData.map(t => [t.name, t]));
          const fig = {{named, layout: drawn.layout}};
          return !!({condition}) }}""",
        arg=[key, arg],
    )


def click_mark(page, key: str, ident: str) -> None:
    """Click the point of a chart that carries ``ident``, as a mouse does."""
    until(page, key, "drawn._fullData.some(t => t.customdata?.includes(arg))", ident)
    _, y = _spot(page, key, ident)
    page.evaluate(
        "by => document.querySelector('[data-testid=stMain]').scrollBy(0, by - innerHeight / 2)", y
    )
    page.wait_for_timeout(300)
    x, y = _spot(page, key, ident)
    page.mouse.move(x, y)  # plotly picks what the mouse hovers over
    page.wait_for_timeout(300)
    page.mouse.click(x, y)


def _spot(page, key: str, ident: str) -> list[float]:
    """Where a point lies in the window, in pixels; a chart that is being drawn anew is awaited."""
    found = page.wait_for_function(
        f"""([key, ident]) => {{ {_CHART}
          const drawn = chart(key);
          if (!drawn?._fullData) return null;
          const box = drawn.getBoundingClientRect();
          for (const t of drawn._fullData) {{
            const at = (t.customdata ?? []).indexOf(ident);
            if (at < 0) continue;
            const [x, y] = [t.xaxis, t.yaxis].map(
              name => drawn._fullLayout[name[0] + "axis" + name.slice(1)]);
            return [box.left + x._offset + x.d2p(t.x[at]), box.top + y._offset + y.d2p(t.y[at])];
          }}
          return null }}""",
        arg=[key, ident],
    )
    return found.json_value()


def download(page, label: str, folder: Path) -> Path:
    """Press a download button and keep the file."""
    with page.expect_download() as waiting:
        page.get_by_role("button", name=label, exact=True).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def decision(page):
    """The sentence of the decision feed, once it tells a decision."""
    return page.get_by_role("status").filter(has_text=re.compile(r"Block \d+ \w+: "))
