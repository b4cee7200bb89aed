"""Entry point: ``python -m streamlit run app/main.py``; ``navigation.py`` is what it serves."""

from __future__ import annotations

import sys

# before any page draws: plotly looks into pandas as soon as another thread begins to import it
import pandas  # noqa: F401
from streamlit.starlette import App

from app import settings
from app.server import downloads
from app.server.index_page import routes
from app.warmup import warming
from pruning.utils.errors import UsageError
from pruning.utils.threads import wait_asleep

wait_asleep()
try:
    settings.current()
except UsageError as error:  # said before anybody comes
    sys.exit(f"headroom: {error}")
app = App("navigation.py", lifespan=warming, routes=[*routes(), downloads.route()])
