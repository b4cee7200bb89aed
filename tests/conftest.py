"""What is not installed is not tested: on a machine that only computes, the engine is tested alone;
without Playwright nothing is tested in a browser."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

ALONE = find_spec("streamlit") is None
NO_BROWSER = find_spec("playwright") is None
collect_ignore = ["app", "browser"] if ALONE else ["browser"] if NO_BROWSER else []
pytest.register_assert_rewrite("tests.helpers")


def pytest_report_header() -> str | None:
    if ALONE:
        return "No Streamlit here: tests of the app are left out."
    return "No Playwright here: tests in a browser are left out." if NO_BROWSER else None
