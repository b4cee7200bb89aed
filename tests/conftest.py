"""What is not installed is not tested: on a machine that only computes, the engine is tested alone;
without Playwright nothing is tested in a browser."""

from __future__ import annotations

import gc
from importlib.util import find_spec

import pytest

from pruning.utils.threads import wait_asleep

wait_asleep()  # tests share the cores with each other
ALONE = find_spec("streamlit") is None
NO_BROWSER = find_spec("playwright") is None
OF_THE_APP = ["app", "browser", "adversarial/test_paths.py"]
collect_ignore = OF_THE_APP if ALONE else ["browser"] if NO_BROWSER else []
pytest.register_assert_rewrite("tests.helpers")

THOROUGH = (
    "tests/devices/",
    "tests/adversarial/test_faults.py",
    "tests/adversarial/test_weights.py",
    "tests/adversarial/test_hub_folders.py",
    "tests/adversarial/test_gguf",
    "tests/adversarial/test_growth.py",
    "tests/adversarial/test_quantised.py",
    "tests/adversarial/test_quantised_formats.py",
    "tests/adversarial/test_sentences.py",
    "tests/pruning/adapters/test_conformance.py",
    "tests/pruning/checkpoint/test_forms.py",
    "tests/pruning/checkpoint/test_plain_transformers.py",
    "tests/test_readmes.py",
    "tests/adversarial/test_headers.py",
    "tests/adversarial/test_caches.py",
    "tests/app/views/test_experiments.py",
    "tests/pruning/checkpoint/test_saving.py::test_killed",
    "tests/pruning/cli/test_cli.py::test_a_real_process",
    "tests/pruning/evaluate/test_perplexity.py::test_peak_memory",
    "tests/pruning/models/execution/test_block_memory.py",
    "tests/pruning/experiments/",
    "tests/pruning/distributed/",
    "tests/pruning/evaluate/test_zero_shot.py",
    "tests/app/jobs/test_zero_shots.py",
)
"""Wide matrices, and what starts many processes: not among the fast tests."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.nodeid.startswith(THOROUGH):
            item.add_marker(pytest.mark.thorough)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file stays with one process, so that its fixtures are made once, and all files of
    ``tests/browser`` with the same one: they share a server and a browser."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "browser" if file.startswith("tests/browser/") else file

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_finish():
    """What was imported stays: looking at half a million objects again and again takes long."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str | None:
    if ALONE:
        return "No Streamlit here: tests of the app are left out."
    return "No Playwright here: tests in a browser are left out." if NO_BROWSER else None
