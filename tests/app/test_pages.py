"""Pages are found where they lie: a file in the folder is all it takes."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
from streamlit.testing.v1 import AppTest

from app import pages
from tests.helpers.stand_ins import MAIN, PATIENCE, words

HELLO = """
import streamlit as st

from app import pages
from app.pages import Page

PAGE = Page("Hello", ":material/waving_hand:", place=15, jobs=("greet",))
st.markdown("Good day.")
pages.link("prune")
"""


@pytest.fixture
def views(tmp_path, monkeypatch):
    """A folder of pages beside our own."""
    monkeypatch.setattr(pages, "folders", lambda: [pages.VIEWS, tmp_path])
    pages.every_page.cache_clear()
    yield tmp_path
    pages.every_page.cache_clear()


@pytest.mark.parametrize("where", ["hello.py", "hello/page.py"])
def test_a_page_that_is_dropped_in_is_in_the_navigation(views, where):
    script = views / where
    script.parent.mkdir(exist_ok=True)
    script.write_text(HELLO)
    (views / "_shared.py").write_text("no page")
    names = [page.name for page in pages.every_page()]
    assert names.index("model") + 1 == names.index("hello") == names.index("heads") - 1
    assert pages.shows("hello", "greet") and not pages.shows("prune", "greet")
    at = AppTest.from_file(MAIN, default_timeout=PATIENCE).run()
    at.switch_page(str(script)).run()
    assert not at.exception and "Good day." in words(at)


def test_other_packages_name_a_folder_of_pages(tmp_path, monkeypatch):
    folder = tmp_path / "more_pages"
    folder.mkdir()
    (folder / "hello.py").write_text(HELLO)
    point = EntryPoint("more", "more_pages", pages.GROUP)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(pages, "entry_points", lambda group: [point])
    assert [page.title for folder in pages.folders()[1:] for page in pages.pages_in(folder)] == [
        "Hello"
    ]


def test_a_file_that_does_not_say_what_page_it_is_is_refused(tmp_path):
    (tmp_path / "nothing.py").write_text("import does_not_exist\n")
    with pytest.raises(ValueError, match="nothing.py holds no 'PAGE = Page"):
        list(pages.pages_in(tmp_path))


def test_every_kind_of_job_that_pages_start_has_one_page():
    kinds = [kind for page in pages.every_page() for kind in page.jobs]
    assert len(kinds) == len(set(kinds)) and "prune" in kinds
    assert pages.landing().name == "heads"
