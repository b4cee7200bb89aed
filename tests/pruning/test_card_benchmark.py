"""The script for a machine with a graphics card: what it makes of the outputs of its steps."""

from __future__ import annotations

import sys
import time

import pytest

from benchmarks import card

OUTPUTS = {
    "_of_tests": ("....\n===== 5 passed, 1 skipped, 900 deselected in 31.20s =====\n", 1),
    "_of_lines": ("Loading: 10%|\nmove of τ: 71 ms (200 ms)\nas it is: 6.1 GB/s\n", 2),
    "_of_seven_b": (
        "write: 9.1 s, peak process 1.00 GiB\nmeasure: 2.2 s, peak process 1.00 GiB, device 20.00 "
        "GiB\ndense pass: 2.0 s, peak process 1.00 GiB\nprune: 31.0 s, peak process 1.00 GiB\n",
        6,
    ),
    "_of_speed": ("| model | tokens |\n|---|---|\n| demo | 64 x 128 |" + " 1.00 |" * 11, 1),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_figures_are_found_in_what_a_step_says(name):
    output, count = OUTPUTS[name]
    rows = getattr(card, name)(output)
    assert len(rows) == count and getattr(card, name)("Traceback") == []
    assert all(len(row) == 3 and row[0] and row[1] for row in rows)
    if name == "_of_seven_b":
        assert ("pruned with recovery", "31.0 s", "60 s") in rows
        assert ("measuring / dense pass", "1.10", "1.3") in rows


def test_without_a_card_nothing_is_run(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["card"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert card.main() == 0
    assert capsys.readouterr().out == (
        "No CUDA device is here, so nothing was run; figures of a card need one.\n"
    )


def test_a_step_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    (tmp_path / "endless.py").write_text(
        "import subprocess, sys, time\n"
        "print('begun', flush=True)\n"
        "subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    )
    monkeypatch.chdir(tmp_path)
    started = time.monotonic()
    status, _ = card._run(card.Step("endless", ("endless",), 0.03, card._of_lines), 60)
    # the pipe closes only when the last process that writes to it is gone
    assert status == "ended, for it took too long" and time.monotonic() - started < 120
    assert card._run(card.Step("late", ("endless",), 1, card._of_lines), 0)[0].startswith("not run")
