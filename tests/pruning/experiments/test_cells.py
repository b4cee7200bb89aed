"""A finished cell is never computed again, whatever ends the process."""

from __future__ import annotations

import os
import signal

import pytest

from pruning.experiments.cells import CellStore
from pruning.experiments.executors import local as local_module
from pruning.experiments.request import Request, protocol_for
from pruning.experiments.run import run_experiment
from pruning.sweep import Sweep, sweep
from pruning.utils.errors import Cancelled
from tests.helpers import families
from tests.helpers.experiments import QUICK, counted, few


def test_a_finished_cell_is_never_computed_again(tiny, monkeypatch):
    experiment, made = few("table2", "Random", "L1 norm"), counted(monkeypatch)
    done = []
    with pytest.raises(Cancelled):
        run_experiment(
            tiny,
            experiment,
            QUICK,
            on_cell=lambda *pair: done.append(pair),
            should_cancel=lambda: len(done) == 2,
        )
    assert len(made) == 2
    first = run_experiment(tiny, experiment, QUICK)
    assert len(made) == 5
    again = run_experiment(tiny, experiment, QUICK)
    assert len(made) == 5 and again.rows == first.rows
    # a row more costs that row, other text costs everything
    run_experiment(tiny, few("table2", "Random", "L1 norm", "L2 norm"), QUICK)
    assert len(made) == 7
    run_experiment(tiny, experiment, Request(quick=True, windows=1))
    assert len(made) == 12


def test_a_kill_loses_at_most_one_cell(tiny, monkeypatch):
    experiment, seen = few("table2", "Random", "L1 norm"), []
    child = os.fork()
    if child == 0:

        def die(place, cell):
            seen.append(place)
            if len(seen) == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            run_experiment(tiny, experiment, QUICK, on_cell=die)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    made = counted(monkeypatch)
    result = run_experiment(tiny, experiment, QUICK)
    assert len(made) == 2 and len(result.rows) == 5


def test_a_torn_cell_is_computed_again(tiny, monkeypatch):
    experiment = few("table2", "Random")
    run_experiment(tiny, experiment, QUICK)
    store = CellStore(tiny, protocol_for(experiment, QUICK, 48))
    path = store.path(None)
    path.write_text(path.read_text()[:40])
    made = counted(monkeypatch)
    run_experiment(tiny, experiment, QUICK)
    assert made == [None]


def test_sweeps_and_experiments_share_their_cells(tiny, monkeypatch):
    run_experiment(tiny, few("table2", "Random"), QUICK)
    made = []
    monkeypatch.setattr(local_module, "compute_cell", lambda *a, **k: made.append(a))
    base = families.recipe()
    wanted = Sweep(base, "ratio", (0.2,), ("random",), text="sample", seq_len=48, windows=2)
    with pytest.raises(AttributeError):  # the second point has to be computed, the dense one not
        sweep(tiny, wanted)
    assert [recipe is None for _, recipe, *_ in made] == [False]
