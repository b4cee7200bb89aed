"""What is imported by whom at run time; ``make lint`` checks who may name whom."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers import PATIENCE, ROOT


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
