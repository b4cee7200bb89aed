"""Entry point: ``python -m streamlit run app/main.py``; ``pages.py`` is what it serves."""

from __future__ import annotations

# before any page draws: plotly looks into pandas as soon as another thread begins to import it
import pandas  # noqa: F401
from streamlit.starlette import App

from app import downloads
from app.front_door import routes
from app.warm_up import warming

app = App("pages.py", lifespan=warming, routes=[*routes(), downloads.route()])
