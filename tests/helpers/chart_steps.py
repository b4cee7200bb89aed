"""What a visitor does with a chart in a browser, and what the chart then shows."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.helpers.steps import at_rest, poll, repeat

# the newest drawing: an outdated one stays on the page until the script has run to its end
_CHART = """
const chart = (key) => document.querySelector(
  `.st-key-${key}:not([data-stale=true]) .js-plotly-plot`);
"""


def traces_now(page, key: str) -> dict[str, dict]:
    """The named traces of a chart: coordinates, ids and texts. Waits for the chart, and reads it
    once, at that moment: it may be redrawn in the next (``until`` waits for a condition)."""
    found = page.wait_for_function(
        f"""key => {{ {_CHART}
          return chart(key)?._fullLayout && chart(key)._fullData?.map(t => ({{
            name: t.name, x: Array.from(t.x ?? []), y: Array.from(t.y ?? []),
            ids: Array.from(t.customdata ?? []), text: t.text}})) }}""",
        arg=key,
    ).json_value()
    return {trace["name"]: trace for trace in found if trace["name"]}


def until(page, key: str, condition: str, arg: Any = None) -> None:
    """Wait until JavaScript ``condition`` holds of the chart's figure ``fig``: its traces by name
    in ``fig.named``, its layout in ``fig.layout``; ``arg`` is what is passed. A trace that is not
    there yet is no error."""
    page.wait_for_function(
        f"""([key, arg]) => {{ {_CHART}
          const drawn = chart(key);
          if (!drawn?._fullData) return false;
          const named = Object.fromEntries(drawn._fullData.map(t => [t.name, t]));
          const fig = {{named, layout: drawn.layout}};
          try {{ return !!({condition}) }} catch (error) {{ return false }} }}""",
        arg=[key, arg],
    )


def click_mark(page, key: str, ident: str) -> None:
    """Click the point or bar of a chart that carries ``ident``, as a mouse does. It is clicked
    again only if the chart has not heard the click."""
    until(page, key, "drawn._fullData.some(t => t.customdata?.includes(arg))", ident)
    heard = "ident => window.clickedMarks?.includes(ident)"

    def click() -> None:
        at_rest(page)
        _listen(page, key)
        x, y = _place_at_rest(page, key, ident)
        page.mouse.move(x + 2, y + 2)
        page.mouse.move(x, y)  # plotly picks what the mouse hovers over
        try:
            page.wait_for_function(
                f"""([key, ident]) => {{ {_CHART}
                  return chart(key)?._hoverdata?.some(p => p.customdata === ident) }}""",
                arg=[key, ident],
                timeout=10_000,
            )
        except PlaywrightTimeout:
            return  # it has moved away
        page.mouse.click(x, y)

    repeat(page, click, lambda: page.evaluate(heard, ident))


def _listen(page, key: str) -> None:
    """Note in the window which marks of a chart are clicked from now on."""
    page.wait_for_function(
        f"""key => {{ {_CHART}
          const drawn = chart(key);
          if (!drawn?.on) return false;
          window.clickedMarks = [];
          drawn.once('plotly_click', event =>
            window.clickedMarks.push(...event.points.map(p => p.customdata)));
          return true }}""",
        arg=key,
    )


def _place_at_rest(page, key: str, ident: str) -> list[float]:
    """Where a point lies, in pixels of the window, once it has been scrolled to the middle and
    stands still: what comes above the chart may still push it down."""
    places: list[list[float]] = []

    def still() -> bool:
        places.append(_place_now(page, key, ident))
        return len(places) > 4 and all(place == places[-1] for place in places[-4:])

    _, y = _place_now(page, key, ident)
    page.evaluate(
        "by => document.querySelector('[data-testid=stMain]').scrollBy(0, by - innerHeight / 2)", y
    )
    poll(page, still)
    return places[-1]


def _place_now(page, key: str, ident: str) -> list[float]:
    """Where a point or the middle of a bar lies in the window at this moment, in pixels; a chart
    that is being redrawn is awaited."""
    found = page.wait_for_function(
        f"""([key, ident]) => {{ {_CHART}
          const drawn = chart(key);
          if (!drawn?._fullData) return null;
          const box = drawn.getBoundingClientRect();
          for (const t of drawn._fullData) {{
            const at = (t.customdata ?? []).indexOf(ident);
            if (at < 0) continue;
            if (t.type === 'bar') {{
              const bars = [...drawn.querySelectorAll('.barlayer .trace')];
              const of_trace = bars.filter(b => b.__data__?.[0]?.trace?.index === t.index)[0];
              const bar = of_trace?.querySelectorAll('.point path')[at]?.getBoundingClientRect();
              return bar ? [bar.left + bar.width / 2, bar.top + bar.height / 2] : null;
            }}
            const [x, y] = [t.xaxis, t.yaxis].map(
              name => drawn._fullLayout[name[0] + "axis" + name.slice(1)]);
            return [box.left + x._offset + x.d2p(t.x[at]), box.top + y._offset + y.d2p(t.y[at])];
          }}
          return null }}""",
        arg=[key, ident],
    )
    return found.json_value()
