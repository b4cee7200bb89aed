"""The engine stands alone, and planning needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import PATIENCE, ROOT

FILES = sorted((ROOT / "pruning").rglob("*.py"))
FORBIDDEN = {"streamlit", "plotly", "app", "tests", "scipy", "matplotlib", "pytest"}


def _imports(path: Path) -> set[str]:
    """First parts of every module imported anywhere in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("pruning" if node.level else (node.module or "").split(".")[0])
    return found


def test_the_scan_sees_the_engine():
    assert len(FILES) > 30
    assert "torch" in _imports(ROOT / "pruning" / "surgery" / "apply.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_engine_imports_nothing_of_the_app(path):
    assert not _imports(path) & FORBIDDEN


def _modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_planning_needs_no_torch():
    loaded = _modules_after(
        "import pruning, pruning.artifacts.recipe, pruning.artifacts.plan, "
        "pruning.planning.planner, pruning.artifacts.measurement, pruning.criteria, "
        "pruning.planning.similarity, pruning.recovery, pruning.planning.allocation, "
        "pruning.data, pruning.artifacts.shapes, pruning.artifacts.events, pruning.cli.main, "
        "pruning.cli.options, pruning.checkpoint.forms, pruning.artifacts.provenance"
    )
    assert "pruning.planning.planner" in loaded
    assert not loaded & {"torch", "transformers", "datasets", "accelerate", "safetensors"}


def test_the_package_names_what_it_offers():
    import pruning

    assert {"load", "make_plan", "perplexity", "generate", "save", "Recipe"} <= set(pruning.__all__)
    assert all(getattr(pruning, name) is not None for name in pruning.__all__)
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = pruning.train
