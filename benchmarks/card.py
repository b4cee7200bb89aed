"""``python -m benchmarks.card``: everything that only a graphics card can show, in ten minutes.

Runs one after the other, each in a process of its own: the tests marked ``gpu``, the copies of
blocks to the card, ``benchmarks.speed`` on the card, ``benchmarks.any_size`` with the shape of
Llama 7B whole on the card, and the Heads page with a model on the card. Prints what each said and
a Markdown table with the card and the date, for ``benchmarks/README.md``. What takes longer than
its share of ``--minutes`` is ended and said to be. Without a card nothing is run;
``--rehearse`` runs the same on the CPU with small sizes, to see that the script works.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.forward import finish

_SHM = Path("/dev/shm")
_FEW = ("--blocks", "2", "--hidden", "256", "--ffn", "704", "--heads", "4", "--samples", "8")
_SEVEN_B = ("--samples", "128", "--seq-len", "128", "--placement", "whole")


@dataclass(frozen=True)
class Step:
    """A module to run with ``arguments``, for ``minutes`` at most, and what its output says: table
    rows of a name, a figure and a target."""

    title: str
    arguments: tuple[str, ...]
    minutes: float
    rows: Callable[[str], list[tuple[str, str, str]]]


def main() -> int:
    """Run all steps and print the table; the exit status is 1 when one failed."""
    options = _options()
    if options.only:
        return _PARTS[options.only](torch.device(options.device))
    card = _card(options.rehearse)
    if card is None:
        print("No CUDA device is here, so nothing was run; figures of a card need one.")
        return 0
    until = time.monotonic() + 60 * options.minutes
    rows, failed = [], False
    for step in _steps("cpu" if options.rehearse else "cuda"):
        print(f"\n## {step.title}\n", flush=True)
        started = time.monotonic()
        status, output = _run(step, until - started)
        seconds = time.monotonic() - started
        found = step.rows(output)
        failed = failed or status != "done"
        rows += [(step.title, f"{status}, {seconds:.0f} s", "")] if status != "done" else []
        rows += [(f"{step.title}: {name}", figure, target) for name, figure, target in found]
    print(f"\n{card}, torch {torch.__version__}, {datetime.now(UTC):%Y-%m-%d}\n")
    print("| what | figure | target |\n|---|---|---|")
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return int(failed)


def _steps(device: str) -> list[Step]:
    small = device == "cpu"
    # in memory where there is enough: writing 13.5 GB to a disk would take the time of all else
    in_memory = _SHM.is_dir() and shutil.disk_usage(_SHM).free > 20e9
    folder = ("--folder", str(_SHM)) if in_memory and not small else ()
    sizes = (*_FEW, "--placement", "whole") if small else (*_SEVEN_B, *folder)
    speed = ("--samples", "4", "--growth", "1") if small else ("--growth", "1", "4")
    return [
        Step("tests", ("pytest", "-v", "-m", "gpu", "tests"), 2.5, _of_tests),
        Step("copies", ("benchmarks.card", "--only", "copies", "--device", device), 0.5, _of_lines),
        Step("7B", ("benchmarks.any_size", "--device", device, *sizes), 4.0, _of_seven_b),
        Step("page", ("benchmarks.card", "--only", "page", "--device", device), 1.0, _of_lines),
        Step("speed", ("benchmarks.speed", "--devices", device, *speed), 2.0, _of_speed),
    ]


def _run(step: Step, left: float) -> tuple[str, str]:
    """How the step ended, and all that it printed, which is shown as well."""
    seconds = min(60 * step.minutes, left)
    if seconds < 1:
        return "not run, for time was up", ""
    process = subprocess.Popen(
        [sys.executable, "-m", *step.arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that what it starts is ended with it
    )
    try:
        output, _ = process.communicate(timeout=seconds)
        status = "failed" if process.returncode else "done"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        status = "ended, for it took too long"
    print(output[-4000:], flush=True)
    return status, output


def _of_tests(output: str) -> list[tuple[str, str, str]]:
    found = re.findall(r"^.*\b(?:passed|failed|skipped|error).* in .*$", output, re.MULTILINE)
    return [("marked gpu", found[-1].strip("= "), "none fails")] if found else []


def _of_lines(output: str) -> list[tuple[str, str, str]]:
    """Lines of ``name: figure unit (target)``."""
    return re.findall(r"^([^:\n]+): ([\d.]+ [\w/]+)(?: \((.*)\))?$", output, re.MULTILINE)


def _of_seven_b(output: str) -> list[tuple[str, str, str]]:
    stages = dict(re.findall(r"^([a-z ]+): ([\d.]+) s, peak", output, re.MULTILINE))
    rows = [(name, f"{seconds} s", "") for name, seconds in stages.items()]
    if {"prune", "measure", "dense pass"} <= stages.keys():
        ratio = float(stages["measure"]) / max(float(stages["dense pass"]), 1e-9)
        rows = [row for row in rows if row[0] != "prune"]
        rows.append(("pruned with recovery", f"{stages['prune']} s", "60 s"))
        rows.append(("measuring / dense pass", f"{ratio:.2f}", "1.3"))
    peaks = re.findall(r"device ([\d.]+ GiB)", output)
    return [*rows, *(("peak of the card", peak, "") for peak in peaks[-1:])]


def _of_speed(output: str) -> list[tuple[str, str, str]]:
    lines = [line.strip("| ").split(" | ") for line in output.splitlines() if "|" in line]
    cells = [line for line in lines if len(line) == 13 and line[0] != "model"]
    return [
        (f"{name}, {tokens} tokens", f"measure {measure}, prune {prune} dense passes", "")
        for name, tokens, *_, measure, prune, _all, _peak in cells
    ]


def _copies(device: torch.device) -> int:
    """A block of 400 MB, as it is and through page-locked buffers."""
    from pruning.models.execution.prefetch import Sender

    block = torch.empty(100 * 2**20 if device.type == "cuda" else 2**20, dtype=torch.float32)
    block.fill_(1.0)
    ways = {"as it is": block.to}
    if device.type == "cuda":
        ways["through page-locked buffers"] = lambda where: Sender().send(block, where)
        sender = Sender()
        ways["through buffers that are there"] = lambda where: sender.send(block, where)
    for name, copy in ways.items():
        for _ in range(3):  # the last one counts
            finish(device)
            started = time.perf_counter()
            copy(device)
            finish(device)
            seconds = time.perf_counter() - started
        print(f"{name}: {block.nbytes / max(seconds, 1e-9) / 1e9:.1f} GB/s")
    return 0


def _page(device: torch.device) -> int:
    """The Heads page of a model that is on the card, and moves of τ."""
    try:
        from benchmarks.preview import first_page_milliseconds, page_milliseconds
    except ModuleNotFoundError as absent:
        print(f"page: not run, for {absent.name} is not installed")
        return 0
    import pruning
    from pruning.artifacts.recipe import Recipe
    from pruning.pipeline import measure_model

    loaded = pruning.load("demo", device=str(device), dtype="float32")
    calibration = {"source": "sample", "samples": 4, "seq_len": 64}
    measured = measure_model(loaded, Recipe.parse({"calibration": calibration}))
    print(f"first page with a model on {device}: {first_page_milliseconds(measured):.0f} ms (2 s)")
    times = sorted(page_milliseconds(measured))
    print(f"move of τ: {times[len(times) // 2]:.0f} ms (200 ms)")
    return 0


_PARTS = {"copies": _copies, "page": _page}


def _card(rehearse: bool) -> str | None:
    if rehearse:
        return "Rehearsal on the CPU with small sizes: not figures of a card"
    if not torch.cuda.is_available():
        return None
    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9.5, help="for everything")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with small sizes")
    parser.add_argument("--only", choices=tuple(_PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
