"""Where Streamlit is not installed, on a machine that only computes, the engine is tested alone."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

ALONE = find_spec("streamlit") is None
collect_ignore = ["app", "browser"] if ALONE else []
pytest.register_assert_rewrite("tests.helpers")


def pytest_report_header() -> str | None:
    return "No Streamlit here: tests of the app are left out." if ALONE else None
