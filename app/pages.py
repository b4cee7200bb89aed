"""The pages, found by looking into ``views``: what each says of itself, and links between them.

A page is one file, or ``page.py`` in a folder of its own, and holds a literal such as::

    PAGE = Page("Sweeps", ":material/timeline:", place=60, jobs=("sweep",))

Its address is the name of the file or folder. The literal is read without running the script, so
the navigation costs no page's imports. Other installed packages add pages through the entry point
group ``headroom.pages``, whose values are packages that hold such files. A module whose name
begins with an underscore is no page.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import streamlit as st

VIEWS = Path(__file__).parent / "views"
GROUP = "headroom.pages"


@dataclass(frozen=True)
class Page:
    """``icon``: a Material icon. ``place``: order in the navigation, the smallest first.
    ``landing``: the bare address opens it. ``jobs``: the kinds of job that it shows in full.
    ``alone``: it fills the screen, without navigation, and is not in the navigation either.
    ``name`` is its address and ``script`` its file; both come from where it lies."""

    title: str
    icon: str
    place: int = 1000
    landing: bool = False
    jobs: tuple[str, ...] = ()
    alone: bool = False
    name: str = field(default="", kw_only=True)
    script: Path = field(default=Path(), kw_only=True)


@cache
def every_page() -> tuple[Page, ...]:
    """All pages, in the order of the navigation."""
    pages = [page for folder in folders() for page in pages_in(folder)]
    return tuple(sorted(pages, key=lambda page: (page.place, page.name)))


def folders() -> list[Path]:
    """Where pages lie: our own folder and those that other packages name."""
    specs = filter(None, (find_spec(point.value) for point in entry_points(group=GROUP)))
    places = (place for spec in specs for place in spec.submodule_search_locations or ())
    return [VIEWS, *map(Path, places)]


def pages_in(folder: Path) -> Iterator[Page]:
    """The pages of one folder. Raises ValueError for a file that does not say what page it is."""
    for path in sorted(folder.iterdir()):
        script = path / "page.py" if path.is_dir() else path
        if script.suffix == ".py" and script.is_file() and not path.name.startswith("_"):
            yield replace(_declared(script), name=path.stem, script=script)


def _declared(script: Path) -> Page:
    for node in ast.parse(script.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign([ast.Name("PAGE")], ast.Call(ast.Name("Page"), values, named)):
                return Page(
                    *map(ast.literal_eval, values),
                    **{item.arg: ast.literal_eval(item.value) for item in named},
                )
    raise ValueError(f"{script} holds no 'PAGE = Page(...)', so it cannot be a page.")


def page(name: str) -> Page:
    """The page at the address ``name``; raises KeyError."""
    return {page.name: page for page in every_page()}[name]


def landing() -> Page:
    """The page that the bare address opens: the first one unless another says that it is."""
    return next((page for page in every_page() if page.landing), every_page()[0])


def shows(name: str, kind: str) -> bool:
    """Whether the page ``name`` shows jobs of this kind in full."""
    return any(page.name == name and kind in page.jobs for page in every_page())


def link(name: str, label: str | None = None, query: Mapping[str, str] | None = None) -> None:
    """A link to a page: ``Open Prune`` with its icon, unless ``label`` says more; ``query``: what
    its address says."""
    there = page(name)
    label = label or f"Open {there.title}"
    st.page_link(there.script, label=label, icon=there.icon, query_params=query)


def switch(name: str) -> None:
    """Leave this page for another one, keeping the session."""
    st.switch_page(page(name).script)
