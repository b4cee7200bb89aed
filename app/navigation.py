"""The app: navigation, what every page shows, and the page that is open."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import tour
from app.components.job_progress import job_strip
from app.session import recipe_link, visitor_jobs

IMAGES = Path(__file__).parent / "images"

# Files of our own: a Material icon here would make the browser fetch it from the internet.
st.set_page_config(page_title="Headroom", page_icon=str(IMAGES / "icon.svg"), layout="wide")
st.logo(str(IMAGES / "logo.svg"), size="large")

model = st.Page("views/model.py", title="Model", url_path="model", icon=":material/deployed_code:")
heads = st.Page("views/heads/page.py", title="Heads", url_path="heads", icon=":material/hub:")
activations = st.Page(
    "views/activations.py", title="Activations", url_path="activations", icon=":material/equalizer:"
)
prune = st.Page(
    "views/prune/page.py", title="Prune", url_path="prune", icon=":material/content_cut:"
)
compare = st.Page(
    "views/compare/page.py", title="Compare", url_path="compare", icon=":material/balance:"
)
sweeps = st.Page("views/sweeps.py", title="Sweeps", url_path="sweeps", icon=":material/timeline:")


def landing() -> None:
    """The bare address opens Heads: its picture needs nothing loaded."""
    st.switch_page(heads, query_params=dict(st.query_params))


start = st.Page(landing, title="Headroom", default=True, visibility="hidden")
page = st.navigation([start, model, heads, activations, prune, compare, sweeps], position="top")
visitor_jobs.reattach()
recipe_link.follow()
tour.follow(page.url_path)
# in places of their own, empty or not: the browser keeps an element's state by its place
with st.container():
    job_strip(page.url_path)
with st.container():
    tour.panel(page.url_path)
page.run()
