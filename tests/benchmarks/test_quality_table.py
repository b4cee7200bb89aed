"""The figures of the quality benchmark: what other work on the machine lengthens is no cost."""

from __future__ import annotations

from argparse import Namespace

from benchmarks.quality_table import FIELDS, print_table
from pruning.utils import stopwatch

PARTS = ("measure", "measure_solves", "prune", "prune_solves", "dense")


def row(method, needs, busy, work):
    """A run on a machine that takes ``busy`` times as long as it works."""
    times = dict(zip(PARTS, work, strict=True))
    words = {"method": method, "setting": "same", "cost": "", "needs": needs, "kept": 0.8}
    figures = dict.fromkeys(set(FIELDS) - set(words), 1)
    seconds = {f"{part}_seconds": busy * value for part, value in times.items()}
    return figures | words | seconds | {f"{part}_work": value for part, value in times.items()}


def test_passes_are_counted_in_what_was_computed(capsys):
    options = Namespace(
        model="m", samples=1, seq_len=1, calibration="c", windows=1, text="a", other_text="b",
        seeds=[1], spare_heads=False, kept=[0.8], methods=["fast", "l1"], settings=["same"],
    )  # fmt: skip
    rows = [row("l1", "", 3, (6, 0, 4, 1, 2)), row("fast", "loss curves", 5, (8, 2, 3, 1, 2))]
    print_table(rows, options)
    fast, l1 = (line.split(" | ") for line in capsys.readouterr().out.splitlines()[-2:])
    # plain measuring and what is added to it, then pruning, without the solves
    assert fast[-5:-1] == ["58", "15", "15", "7.0"] and l1[-5:-1] == ["18", "12", "3", "4.5"]


def test_a_stopwatch_keeps_both_clocks(monkeypatch):
    monkeypatch.setattr(stopwatch.time, "perf_counter", iter((0.0, 3.0, 10.0, 14.0)).__next__)
    monkeypatch.setattr(stopwatch.time, "process_time", iter((0.0, 1.0, 1.0, 1.5)).__next__)
    watch = stopwatch.Stopwatch()
    for _ in range(2):
        with watch.running():
            pass
    assert (watch.seconds, watch.cpu_seconds) == (7.0, 1.5)
