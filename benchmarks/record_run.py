"""``python -m benchmarks.record_run``: records the run that a visit to the app begins with.

The embedded model, the recipe that the app's first page fills in, and what a run answers at its
end, as one file that the app can play without torch (``assets/demo-run.json.gz``).
"""

from __future__ import annotations

import argparse
import os
import time
from datetime import date
from pathlib import Path

from app.session.state import initial_recipe
from pruning.artifacts.comparison import Questions, is_plausible
from pruning.artifacts.recorded import DEMO_RUN, RecordedRun
from pruning.evaluate import compare
from pruning.models.loading import load
from pruning.pipeline import prune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEMO_RUN)
    parser.add_argument("--machine", default=f"{os.cpu_count()} CPU cores", help="as people say it")
    options = parser.parse_args()
    recipe = initial_recipe()
    loaded = load(recipe.model.source, dtype=recipe.model.dtype, device="cpu")
    started = time.perf_counter()
    run = prune(loaded, recipe)
    comparison = compare(run.dense, run.pruned, Questions())
    if not is_plausible(comparison.speed, run.report.kept_block_parameters):
        raise SystemExit("This machine is busy with other work; record the run when it is idle.")
    recorded = RecordedRun(
        recipe,
        run.plan,
        run.events,
        round(time.perf_counter() - started, 1),
        run.report,
        comparison,
        date.today().isoformat(),
        options.machine,
    )
    recorded.write(options.out)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, {recorded.seconds} s")


if __name__ == "__main__":
    main()
